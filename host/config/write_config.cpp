// A configuration as TOML, and the list of all keys for users: both written from the tables of keys.
#include <cmath>

#include "einfield/config.hpp"
#include "host/config/key_tables.hpp"
#include "host/config/recipes.hpp"

namespace einfield {
namespace {

std::string psf_text(const std::string& title, PsfConfig& psf) {
  const bool table = psf.type == "gaussian" || psf.type == "moffat";
  return table ? "\n[" + title + "]\n" + write_keys(psf_keys(psf)) : "";
}

/// The tables `bounds` and `prior` of a component, which follow its other keys.
std::string priors_text(const std::string& block, const ProfileInfo& info, std::vector<ParameterPrior>& priors) {
  const std::string bounds = write_keys(bounds_keys(info, priors)), normals = write_keys(prior_keys(info, priors));
  return (bounds.empty() ? "" : "[" + block + ".bounds]\n" + bounds) +
         (normals.empty() ? "" : "[" + block + ".prior]\n" + normals);
}

}  // namespace

std::string to_toml(const Config& config) {
  Config c = config;  // tables of keys bind to objects that they may also set
  std::string text = write_keys(top_keys(c));
  text += "\n[observation]\n" + write_keys(observation_keys(c.observation, true)) +
          psf_text("observation.psf", c.observation.psf);
  for (RegionConfig& region : c.observation.regions)
    text += "\n[[observation.region]]\n" + write_keys(region_keys(region));
  for (LensComponent& lens : c.model.lens)
    text += "\n[[lens]]\n" + write_keys(lens_keys(lens)) + priors_text("lens", lens_info(lens.kind), lens.priors);
  const auto write_lights = [&text](const std::string& block, std::vector<LightComponent>& lights,
                                    std::vector<LightStart>& starts) {
    for (std::size_t i = 0; i < lights.size(); ++i)
      text += "\n[[" + block + "]]\n" + write_keys(light_keys(lights[i], starts.at(i))) +
              priors_text(block, light_info(lights[i].kind), lights[i].priors);
  };
  write_lights("source", c.model.source, c.source_start);
  write_lights("lens_light", c.model.lens_light, c.lens_light_start);
  if (c.network) text += "\n[network]\n" + write_keys(network_keys(*c.network));
  text += "\n[optimizer]\n" + write_keys(optimizer_keys(c.optimizer));
  for (StageConfig& stage : c.optimizer.stages) text += "\n[[optimizer.stage]]\n" + write_keys(stage_keys(stage));
  text += "\n[regularization]\n" + write_keys(regularization_keys(c.regularization));
  text += "\n[uncertainty]\n" + write_keys(uncertainty_keys(c.uncertainty));
  if (c.cosmology) text += "\n[cosmology]\n" + write_keys(cosmology_keys(*c.cosmology));
  if (!c.truth.empty()) text += "\n[truth]\n" + write_keys(truth_keys(c.truth));
  if (c.simulate)
    text += "\n[simulate]\n" + write_keys(simulate_keys(*c.simulate)) + psf_text("simulate.psf", c.simulate->psf);
  for (LensComponent& lens : c.perturbation) text += "\n[[perturbation]]\n" + write_keys(perturbation_keys(lens));
  for (RandomFieldConfig& field : c.random_fields)
    text += "\n[[perturbation]]\n" + write_keys(random_field_keys(field));
  return text;
}

std::string list_keys() {
  Config c;
  NetworkConfig network = recipe(c.recipe).network;
  OptimizerConfig optimizer = recipe(c.recipe).optimizer;
  RegularizationConfig regularization = recipe(c.recipe).regularization;
  UncertaintyConfig uncertainty;
  uncertainty.method = UncertaintyKind::laplace;
  SimulateConfig simulate;
  PsfConfig psf;
  psf.type = "gaussian";
  psf.fwhm = psf.beta = std::nan("");
  const auto title = [](const char* blocks, const ProfileInfo& info) {
    return std::string(blocks) + " profile = \"" + info.name + "\"";
  };
  std::string text =
      "Keys of the configuration: key, type, unit, range, default, meaning. N is the index of a component in its "
      "block, "
      "from 0.\n`--set KEY=VALUE` uses the same names. Paths are relative to the configuration file.\nIn place of a "
      "number, a parameter of a profile may follow another one: center_x = \"lens_light.0.center_x\", R_sersic = \"0.5 "
      "* lens.0.theta_E + 0.1\".\n\n";
  text += list_table("title, recipe, blocks", "", top_keys(c));
  text += "\n" + list_table("[observation]", "observation.", observation_keys(c.observation, true));
  RegionConfig region;
  region.radius = region.inner = region.outer = std::nan("");
  text += "\n" + list_table("[[observation.region]]", "observation.region.N.", region_keys(region));
  text += "\n" + list_table("psf = { ... } in [observation] and [simulate]", "observation.psf.", psf_keys(psf));
  for (int i = 0; i < kLensKinds; ++i) {
    LensComponent lens{static_cast<LensKind>(i), {}, {}};
    set_defaults(lens);
    text += "\n" + list_table(title("[[lens]], [[perturbation]] (without bounds, prior and fit)", lens_info(lens.kind)),
                              "lens.N.", lens_keys(lens));
  }
  for (int i = 0; i < kLightKinds; ++i) {
    LightComponent light;
    light.kind = static_cast<LightKind>(i);
    set_defaults(light);
    LightStart start_value;
    start_value.network = light_network_defaults();
    text += "\n" + list_table(title("[[source]], [[lens_light]]", light_info(light.kind)), "source.N.",
                              light_keys(light, start_value));
  }
  LightComponent gaussian;
  gaussian.kind = LightKind::gaussian_ellipse;
  set_defaults(gaussian);
  Expansion expansion;
  expansion.sigma_min = expansion.sigma_max = std::nan("");
  text += "\n" + list_table(std::string("[[source]], [[lens_light]] profile = \"") + kExpansion + "\"", "source.N.",
                            expansion_keys(gaussian, expansion));
  text += "\n" + list_table("[network]", "network.", network_keys(network));
  text += "\n" + list_table("[optimizer]", "optimizer.", optimizer_keys(optimizer));
  text +=
      "\n" + list_table("[[optimizer.stage]], defaults as in [optimizer]", "optimizer.stage.N.", stage_keys(optimizer));
  text += "\n" + list_table("[regularization]", "regularization.", regularization_keys(regularization));
  text += "\n" + list_table("[uncertainty]", "uncertainty.", uncertainty_keys(uncertainty));
  Cosmology cosmology;
  cosmology.z_lens = cosmology.z_source = std::nan("");
  text += "\n" + list_table("[cosmology]", "cosmology.", cosmology_keys(cosmology));
  text += "\n" + list_table("[truth]", "truth.", truth_keys(c.truth));
  text += "\n" + list_table("[simulate]", "simulate.", simulate_keys(simulate));
  RandomFieldConfig field{std::nan(""), std::nan(""), 1};
  text += "\n" + list_table(std::string("[[perturbation]] profile = \"") + kRandomField + "\"", "perturbation.N.",
                            random_field_keys(field));
  return text;
}

}  // namespace einfield
