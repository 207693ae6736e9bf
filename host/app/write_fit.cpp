// Files first, then pictures: figures and report are drawn from memory.
#include "host/app/write_fit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "host/exchange/fitted_lens.hpp"
#include "host/files/text.hpp"
#include "host/report/figures.hpp"
#include "host/report/report.hpp"
#include "host/results/write_results.hpp"

namespace einfield {
namespace {

/// Draws the figures and writes the report, from memory.
void draw_all(Log& log, const Assessment& fitted, const std::string& json, const std::string& out) {
  const FittedMaps maps = fitted_maps(fitted);
  const std::vector<std::string> complaints = draw_figures(maps, out);
  for (const std::string& warning : complaints) log.warning(warning);
  // A problem with gnuplot affects the figures and the page alike: one warning for both.
  const ReportContent content{json, maps, fitted.derived.curves, {}};
  for (const std::string& warning : write_report(content, out))
    if (std::find(complaints.begin(), complaints.end(), warning) == complaints.end()) log.warning(warning);
}

/// The evidence and the weights that it belongs to.
void report_evidence(Log& log, const Evidence& evidence) {
  std::string weights;
  for (const Regularization::Weight& weight : Regularization::kWeights)
    if (evidence.weights.*weight.member > 0)
      weights +=
          fmt::format("{}{} = {:.3g}", weights.empty() ? "" : ", ", weight.name, evidence.weights.*weight.member);
  log.line(
      fmt::format("ln evidence {:.2f}; the data determine {:.0f} parameters of the source and {:.0f} of the network",
                  evidence.log_evidence, evidence.determined_source, evidence.determined_network));
  if (!weights.empty()) log.line("regularization: " + weights);
  const std::optional<double> gain = evidence.network_gain();
  if (!gain) return;
  log.line(fmt::format("without the network ln evidence is {:.2f}: ", *evidence.without_network) +
           (*gain > kStrongEvidence ? fmt::format("the data ask for it, by {:.1f}", *gain)
            : *gain > 0             ? fmt::format("the network raises it by {:.1f} only", *gain)
                                    : "the data do not ask for one"));
}

/// Every flag on a line, and the status on the last line of the run.
RunOutcome report_verdict(Log& log, const Assessment& fitted) {
  RunOutcome outcome;
  outcome.status = fitted.status();
  std::vector<std::string> names;
  for (const RaisedFlag& raised : fitted.flags) {
    const FlagInfo& info = flag_info(raised.flag);
    log.line(std::string("flag: ") + info.name + ": " + raised.text);
    if (std::find(names.begin(), names.end(), info.name) == names.end()) names.emplace_back(info.name);
    if (info.status == FitStatus::failed && outcome.message.empty()) outcome.message = raised.text;
  }
  log.line(std::string("status: ") + name_of(outcome.status) + (names.empty() ? "" : " (" + joined(names) + ")"));
  return outcome;
}

}  // namespace

RunOutcome write_fit(Log& log, const Assessment& fitted, const RunInfo& info, const RunOptions& options) {
  const std::string json = write_results(options.out, fitted, info, {coolest_writer(fitted, options.threads)});
  if (options.figures) draw_all(log, fitted, json, options.out);
  if (const std::optional<Evidence>& evidence = fitted.outcome().evidence) report_evidence(log, *evidence);
  log.line(summary(fitted));
  if (fitted.significance) log.line(in_words(*fitted.significance, !fitted.kappa_psf.empty()));
  if (fitted.layout.size() == 0) log.line("nothing was free: the model was evaluated as it is given");
  log.line("results: " + options.out);
  return report_verdict(log, fitted);
}

}  // namespace einfield
