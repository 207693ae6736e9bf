#include "host/app/batch_command.hpp"

#include <signal.h>  // NOLINT(modernize-deprecated-headers): SIGTERM

#include <iostream>
#include <memory>
#include <string>

#include "host/app/batch.hpp"
#include "host/app/command_line.hpp"
#include "host/app/options.hpp"
#include "host/batch/engine.hpp"

namespace einfield {
namespace {

struct Options {
  BatchOptions batch;
  std::string keep = "none", time_limit, lease = "3m";
  RunFlags flags;

  void add_manifest_to(CLI::App* command) {
    command
        ->add_option(
            "MANIFEST", batch.manifest,
            "table of lenses, ECSV or FITS: id, image, noise, psf, mask, pixel_scale, ra, dec, z_lens, z_source, "
            "template, x, y, size, and keys of the configuration as lens.0.theta_E")
        ->type_name("FILE[HDU]")
        ->required()
        ->check(path());
    command
        ->add_option("--template", batch.template_file,
                     "configuration of all lenses; columns of the manifest replace its values")
        ->type_name("FILE.toml")
        ->check(path());
    flags.add_to(command, "CPU threads, each of which fits one lens at a time; 0 = all that the process may use");
  }
  BatchOptions options() {
    batch.run = flags.options();
    batch.terminated = [] { return caught_signal() == SIGTERM; };
    batch.keep = keep == "all" ? Keep::all : keep == "flagged" ? Keep::flagged : Keep::none;
    if (!time_limit.empty()) batch.time_limit = seconds_of("--time-limit", time_limit);
    batch.lease = seconds_of("--lease", lease);
    return batch;
  }
};

Command plan_command(CLI::App& batch) {
  const auto o = std::make_shared<Options>();
  const auto sample = std::make_shared<int>(1);
  CLI::App* command = add_command(batch, "plan", "Check every lens and predict memory, time and files; write nothing");
  o->add_manifest_to(command);
  command
      ->add_option("--sample", *sample,
                   "fit a lens of each of the N largest groups to measure the time, for a minute at most; 0 = none")
      ->type_name("N")
      ->check(whole_number(0, 1000))
      ->capture_default_str();
  return {command, [o, sample](const std::vector<std::string>&) {
            catch_signals();
            return o->flags.status_of([&] { return batch_plan(o->options(), *sample); });
          }};
}

Command run_command(CLI::App& batch) {
  const auto o = std::make_shared<Options>();
  CLI::App* command = add_command(batch, "run", "Fit the lenses that are not finished");
  o->add_manifest_to(command);
  add_out(command, o->batch.out, "DIR", "directory of the survey; default: <name of the manifest>_batch");
  command
      ->add_option("--shard", o->batch.shard,
                   "auto, or i/n: begin with this share of the lenses, then help others; auto asks Slurm, Open MPI, "
                   "MPICH and PMIx")
      ->type_name("i/n")
      ->capture_default_str();
  command->add_option("--only", o->batch.only, "fit these again: failed, flagged, changed, or ids, separated by commas")
      ->type_name("NAMES");
  command->add_option("--time-limit", o->time_limit, "end after this time, as 55m, with checkpoints and status 75")
      ->type_name("TIME");
  command->add_option("--keep", o->keep, "lenses whose results are written to DIR/lenses: none, flagged or all")
      ->type_name("NAME")
      ->check(one_of({"none", "flagged", "all"}))
      ->capture_default_str();
  command->add_option("--lease", o->lease, "time without a sign of life after which a lens is taken over")
      ->type_name("TIME")
      ->capture_default_str();
  return {command, [o](const std::vector<std::string>&) {
            catch_signals();
            return o->flags.status_of([&] { return batch_run(o->options()); });
          }};
}

Command status_command(CLI::App& batch) {
  const auto dir = std::make_shared<std::string>();
  CLI::App* command = add_command(batch, "status", "Show how far a survey is");
  command->add_option("DIR", *dir, "directory of the survey")->type_name("")->required()->check(path());
  return {command, [dir](const std::vector<std::string>&) { return batch_status(*dir, std::cout); }};
}

Command collect_command(CLI::App& batch) {
  struct Collect {
    std::string dir, out, gallery;
    bool overwrite = false;
  };
  const auto o = std::make_shared<Collect>();
  CLI::App* command = add_command(batch, "collect", "Write the table of a survey, at any time");
  command->add_option("DIR", o->dir, "directory of the survey")->type_name("")->required()->check(path());
  add_out(command, o->out, "FILE",
          "file to write, as FITS or, with the ending .ecsv, as text; default: DIR/lenses.fits");
  command
      ->add_option("--gallery", o->gallery,
                   "also write FOLDER/report.html: a page with small pictures of all lenses, sorted by any column")
      ->type_name("FOLDER")
      ->check(path());
  command->add_flag("--overwrite", o->overwrite, "replace existing files")->disable_flag_override();
  return {command, [o](const std::vector<std::string>&) {
            return batch_collect(o->dir, o->out, o->gallery, o->overwrite, std::cout);
          }};
}

}  // namespace

std::vector<Command> batch_commands(CLI::App& app) {
  CLI::App* batch = add_command(app, "batch", "Fit a survey of lenses, alone or on a cluster");
  batch->require_subcommand(1);
  return {plan_command(*batch), run_command(*batch), status_command(*batch), collect_command(*batch)};
}

}  // namespace einfield
