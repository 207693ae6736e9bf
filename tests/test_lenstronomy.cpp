// lenstronomy's dictionaries: its own images of models with every profile, there and back, and hostile files.
#include "host/exchange/lenstronomy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/exchanged_lens.hpp"

namespace einfield {
namespace {

using nlohmann::json;

const auto read = [](const std::string& file, std::vector<std::string>& warnings) {
  return read_lenstronomy(file, warnings);
};

json golden() {
  std::ifstream stream(std::string(EINFIELD_GOLDEN_DIR) + "/exchange.json");
  return json::parse(stream);
}

TEST(Lenstronomy, SeesTheSameImageWithEitherDirectionOfX) {
  const TemporaryDirectory folder;
  const json numbers = golden();
  for (const std::string name : {"lenstronomy", "lenstronomy_mirrored"}) {
    std::vector<std::string> warnings;
    const ExchangedLens lens = read_lenstronomy(folder.write(name + ".json", numbers[name].dump()), warnings);
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_NE(warnings[0].find("kwargs_data.image_data: missing"), std::string::npos);
    ASSERT_EQ(lens.model.lens.size(), 13u);
    expect_same_image(simulated_image(lens), numbers[name + "_image"].get<std::vector<double>>());
  }
}

TEST(Lenstronomy, ThereAndBackIsTheSameLens) {
  const TemporaryDirectory folder;
  for (const int ny : {9, 6}) {
    const ExchangedLens lens = every_component(9, ny);
    write_networks(lens, folder);
    const std::vector<std::string> notes = write_lenstronomy(folder.path().string(), lens);
    EXPECT_EQ(notes.size(), ny == 9 ? 2u : 3u);  // the network, the NETWORK source, not square
    std::vector<std::string> warnings;
    expect_same_lens(on_square_image(lens), read_lenstronomy(folder / "lenstronomy.json", warnings));
    EXPECT_TRUE(warnings.empty());
  }
}

TEST(Lenstronomy, TheNetworkIsItsDeflectionAtEveryRay) {
  const TemporaryDirectory folder;
  const ExchangedLens lens = every_component(9, 9);
  write_lenstronomy(folder.path().string(), lens);
  const json file = json::parse(folder.read("lenstronomy.json"));
  EXPECT_EQ(file["kwargs_model"]["lens_model_list"].back(), "INTERPOL");
  EXPECT_EQ(file["kwargs_lens"].back()["f_x"], "lenstronomy.fits[NETWORK_FX]");
  const auto map = [&](const char* hdu) { return read_fits(folder / "lenstronomy.fits", hdu).values; };
  const std::vector<double> x = map("NETWORK_X"), y = map("NETWORK_Y"), fx = map("NETWORK_FX"), fy = map("NETWORK_FY");
  const Grid& grid = lens.observation.grid;
  const LensFields fields = exchanged_network(lens, ray_positions(grid));
  const std::size_t n = fields.potential.size();
  for (int ray = 0; ray < grid.n_rays(); ++ray) {
    // Rays go pixel by pixel, the map row by row.
    const int pixel = ray / 4, column = 2 * (pixel % 9) + ray % 2, row = 2 * (pixel / 9) + ray % 4 / 2;
    const auto k = static_cast<std::size_t>(row * 18 + column), i = static_cast<std::size_t>(ray);
    EXPECT_NEAR(x[static_cast<std::size_t>(column)], grid.ray(ray).x, 1e-14);
    EXPECT_NEAR(y[static_cast<std::size_t>(row)], grid.ray(ray).y, 1e-14);
    EXPECT_NEAR(fx[k], fields.deflection[i], 1e-13);
    EXPECT_NEAR(fy[k], fields.deflection[n + i], 1e-13);
  }
}

TEST(Lenstronomy, ListsAndFlatDictionariesAreRead) {
  // As a script would dump them: arrays as lists, model lists at the top, results in kwargs_result.
  const TemporaryDirectory folder;
  const json file = {{"lens_model_list", {"PEMD", "NFW_ELLIPSE"}},
                     {"source_light_model_list", {"SERSIC"}},
                     {"lens_light_model_list", json::array()},
                     {"kwargs_result",
                      {{"kwargs_lens", {{{"theta_E", 1.0}, {"gamma", 1.9}}, {{"Rs", 2}, {"alpha_Rs", 0.1}}}},
                       {"kwargs_source", {{{"amp", 100}, {"R_sersic", 0.3}, {"n_sersic", 1}}}}}},
                     {"kwargs_fixed_lens", {{{"gamma", 1.9}}, json::object()}},
                     {"kwargs_data",
                      {{"image_data", {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}},
                       {"background_rms", 0.5},
                       {"exposure_time", 10},
                       {"ra_at_xy_0", 0.2},
                       {"dec_at_xy_0", -0.2},
                       {"transform_pix2angle", {{-0.2, 0}, {0, 0.2}}}}},
                     {"kwargs_psf", {{"psf_type", "GAUSSIAN"}, {"fwhm", 0.3}}}};
  std::vector<std::string> warnings;
  const ExchangedLens lens = read_lenstronomy(folder.write("flat.json", file.dump()), warnings);
  EXPECT_EQ(lens.model.lens[0].kind, LensKind::epl);
  EXPECT_EQ(lens.model.lens[1].kind, LensKind::nfw_ellipse_potential);
  EXPECT_TRUE(lens.model.lens[0].free[0]);
  EXPECT_FALSE(lens.model.lens[0].free[1]);
  EXPECT_NEAR(lens.model.source[0].values[0], 4, 1e-14);  // 100 per arcsec² on pixels of 0.2″
  EXPECT_FALSE(lens.model.source[0].free[3]);             // SERSIC is circular
  EXPECT_EQ(lens.observation.image[5], 6);
  EXPECT_NEAR(lens.observation.noise[5], std::sqrt(0.25 + 0.6), 1e-15);
  EXPECT_NEAR(lens.observation.grid.center_x, 0, 1e-15);
  EXPECT_EQ(lens.psf_fwhm, 0.3);
}

/// A small complete file, as lenstronomy would dump it.
json small_file() {
  return {{"kwargs_model", {{"lens_model_list", {"SIE"}}, {"source_light_model_list", {"GAUSSIAN"}}}},
          {"kwargs_lens", {{{"theta_E", 1.0}, {"e1", 0.1}, {"e2", 0.0}, {"center_x", 0.0}, {"center_y", 0.0}}}},
          {"kwargs_source", {{{"amp", 100}, {"sigma", 0.3}, {"center_x", 0.1}, {"center_y", 0.0}}}},
          {"kwargs_fixed_lens", {{{"e2", 0.0}}}},
          {"kwargs_data",
           {{"image_data", {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}},
            {"background_rms", 0.5},
            {"exposure_time", {{0, 10, 10}, {10, 10, 10}, {10, 10, 0}}},
            {"ra_at_xy_0", 0.2},
            {"dec_at_xy_0", -0.2},
            {"transform_pix2angle", {{-0.2, 0}, {0, 0.2}}}}},
          {"kwargs_psf", {{"psf_type", "GAUSSIAN"}, {"fwhm", 0.3}}}};
}

TEST(Lenstronomy, WhatIsNotUnderstoodIsRefusedByName) {
  const TemporaryDirectory folder;
  const struct {
    std::string pointer;
    json value;
    std::string message;
  } cases[] = {
      {"/kwargs_model/multi_plane", true, "kwargs_model.multi_plane: not supported, found true"},
      {"/kwargs_constraints",
       {{"joint_source_with_point_source", {{0, 0}}}},
       "kwargs_constraints.joint_source_with_point_source: not supported"},
      {"/kwargs_likelihood",
       {{"prior_lens_lognormal", {{0, "theta_E", 0, 1}}}},
       "kwargs_likelihood.prior_lens_lognormal: not supported, expected "},
      {"/kwargs_psf/psf_variance_map", {{0.1}}, "kwargs_psf.psf_variance_map: not supported"},
      {"/kwargs_psf/psf_error_map", {{0.1}}, "kwargs_psf.psf_error_map: not supported"},
      {"/kwargs_numerics",
       {{"compute_mode", "adaptive"}},
       "kwargs_numerics.compute_mode: not supported, found \"adaptive\", expected \"regular\""},
      {"/kwargs_datta", {{"x", 1}}, "kwargs_datta: not supported, expected kwargs_data"},
      {"/kwargs_data/exposure_tmie", 3, "kwargs_data.exposure_tmie: not supported, found 3, expected exposure_time"},
      {"/kwargs_fixed_lens", {{{"e3", 0}}}, "kwargs_fixed_lens[0]: unknown keyword of SIE, found e3"},
  };
  for (const auto& c : cases) {
    json file = small_file();
    file[json::json_pointer(c.pointer)] = c.value;
    const std::string path = folder.write("model.json", file.dump());
    EXPECT_EQ(complaint(read, path).substr(0, path.size() + 2 + c.message.size()), path + ": " + c.message)
        << complaint(read, path);
  }
  // Left out on request, by its name or its path; a key that says nothing may stay.
  json file = small_file();
  file["kwargs_model"]["multi_plane"] = true;
  file["kwargs_model"]["lens_redshift_list"] = {0.5, 0.7};
  file["kwargs_model"]["point_source_model_list"] = json::array();
  file["kwargs_likelihood"] = {{"source_marg", false}, {"force_no_add_image", nullptr}};
  const std::string path = folder.write("model.json", file.dump());
  std::vector<std::string> warnings;
  read_lenstronomy(path, warnings, {"multi_plane"});
  EXPECT_NE(std::find(warnings.begin(), warnings.end(), path + ": kwargs_model.multi_plane: ignored"), warnings.end());
  EXPECT_THROW(read_lenstronomy(path, warnings, {"multi_plane", "not_there"}), InvalidInput);
  file["kwargs_constraints"]["joint_source_with_point_source"] = {{0, 0}};
  const std::string joint = folder.write("joint.json", file.dump());
  EXPECT_THROW(read_lenstronomy(joint, warnings, {"multi_plane"}), InvalidInput);
  read_lenstronomy(joint, warnings, {"kwargs_model.multi_plane", "kwargs_constraints"});
}

TEST(Lenstronomy, ConstraintsBecomeRelations) {
  const TemporaryDirectory folder;
  json file = small_file();
  file["kwargs_model"]["lens_model_list"].push_back("SHEAR");
  file["kwargs_lens"].push_back({{"gamma1", 0.02}, {"gamma2", 0.01}});
  file["kwargs_model"]["lens_light_model_list"] = {"GAUSSIAN_ELLIPSE"};
  file["kwargs_lens_light"] = {
      {{"amp", 3}, {"sigma", 0.4}, {"e1", 0.1}, {"e2", 0.2}, {"center_x", 0.05}, {"center_y", -0.04}}};
  file["kwargs_constraints"] = {{"joint_lens_with_light", {{0, 0, {"center_x", "center_y", "e1", "e2"}}}},
                                {"joint_lens_with_lens", {{0, 1, {{"ra_0", "center_x"}, {"dec_0", "center_y"}}}}}};
  std::vector<std::string> warnings;
  const ExchangedLens lens = read_lenstronomy(folder.write("model.json", file.dump()), warnings);
  const LensComponent& sie = lens.model.lens.at(0);
  const LightComponent& light = lens.model.lens_light.at(0);
  const auto index = [](const ProfileInfo& info, const char* name) {
    return static_cast<std::size_t>(info.index_of(name));
  };
  for (const char* name : {"center_x", "center_y", "e1", "e2"}) {
    const std::size_t i = index(lens_info(sie.kind), name);
    EXPECT_EQ(sie.follows.at(i).of, std::string("lens_light.0.") + name);
    EXPECT_EQ(sie.follows.at(i).factor, 1);
    EXPECT_FALSE(sie.free[i]);
    EXPECT_EQ(sie.values[i], light.values[index(light_info(light.kind), name)]);
  }
  const LensComponent& shear = lens.model.lens.at(1);
  EXPECT_EQ(shear.follows.at(2).of, "lens.0.center_x");
  EXPECT_EQ(shear.values[2], sie.values[3]);

  const auto message = [&](const json& constraints) {
    file["kwargs_constraints"] = constraints;
    return complaint(read, folder.write("model.json", file.dump()));
  };
  EXPECT_NE(message({{"joint_lens_with_light", {{1, 0, {"e1"}}}}}).find("no such component"), std::string::npos);
  EXPECT_NE(message({{"joint_lens_with_light", {{0, 0, {"q"}}}}}).find("no parameter of SIE, found q"),
            std::string::npos);
  EXPECT_NE(message({{"joint_lens_with_lens", {{0, 0, {"e1"}}}}}).find("lens.0.e1: follows itself"), std::string::npos);
}

TEST(Lenstronomy, PixelsWithoutExposureAreMasked) {
  const TemporaryDirectory folder;
  std::vector<std::string> warnings;
  json file = small_file();
  ExchangedLens lens = read_lenstronomy(folder.write("model.json", file.dump()), warnings);
  EXPECT_EQ(lens.observation.mask, (std::vector<std::uint8_t>{0, 1, 1, 1, 1, 1, 1, 1, 0}));
  for (const double sigma : lens.observation.noise) EXPECT_TRUE(std::isfinite(sigma));
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("kwargs_data.exposure_time: 2 pixels without exposure, masked"), std::string::npos);
  file["kwargs_likelihood"]["image_likelihood_mask_list"] = {{{1, 0, 1}, {1, 1, 1}, {1, 1, 1}}};
  lens = read_lenstronomy(folder.write("model.json", file.dump()), warnings);
  EXPECT_EQ(lens.observation.mask, (std::vector<std::uint8_t>{0, 0, 1, 1, 1, 1, 1, 1, 0}));
}

TEST(Lenstronomy, GaussianPriorsAreCarriedOver) {
  const TemporaryDirectory folder;
  std::vector<std::string> warnings;
  json file = small_file();
  file["kwargs_likelihood"]["prior_lens"] = {{0, "theta_E", 1.1, 0.01}, {0, "center_x", 0.02, 0.1}};
  file["kwargs_likelihood"]["prior_source"] = {{0, "amp", 50.0, 10.0}};
  const ExchangedLens lens = read_lenstronomy(folder.write("model.json", file.dump()), warnings);
  const auto prior = [](const auto& c, const ProfileInfo& info, const char* name) {
    return c.priors.at(static_cast<std::size_t>(info.index_of(name)));
  };
  const LensComponent& sie = lens.model.lens[0];
  EXPECT_EQ(prior(sie, lens_info(sie.kind), "theta_E").mean, 1.1);
  EXPECT_EQ(prior(sie, lens_info(sie.kind), "theta_E").sigma, 0.01);
  EXPECT_EQ(prior(sie, lens_info(sie.kind), "center_x").mean, -0.02);  // mirrored
  const LightComponent& source = lens.model.source[0];
  EXPECT_NEAR(prior(source, light_info(source.kind), "amp").mean, 50 * 0.04, 1e-14);
  EXPECT_NEAR(prior(source, light_info(source.kind), "amp").sigma, 10 * 0.04, 1e-14);
  file["kwargs_likelihood"]["prior_lens"] = {{0, "e2", 0.0, 0.1}};  // fixed
  EXPECT_THROW(read_lenstronomy(folder.write("model.json", file.dump()), warnings), InvalidInput);
}

TEST(Lenstronomy, BadDictionariesNameFileAndMember) {
  const TemporaryDirectory folder;
  const json good = golden()["lenstronomy"];
  const struct {
    std::string pointer;
    json value;
    std::string message;
  } cases[] = {
      {"/kwargs_data", nullptr, "kwargs_data: missing"},
      {"/kwargs_data/transform_pix2angle",
       {{0.1, 0.1}, {-0.1, 0.1}},
       "kwargs_data.transform_pix2angle: found [[0.1, 0.1]"},
      {"/kwargs_data/transform_pix2angle", {0.1, 0.1}, "kwargs_data.transform_pix2angle[0]: wrong type"},
      {"/kwargs_data/nx", 1e7, "kwargs_data.nx: out of range"},
      {"/kwargs_data/image_data",
       {{1, 2}, {3}},
       "kwargs_data.image_data[1]: found 1 numbers, expected 2 as in the first row"},
      {"/kwargs_data/image_data", json::array(), "kwargs_data.image_data: an empty list, expected rows of numbers"},
      {"/kwargs_data/image_data", {{"one"}}, "kwargs_data.image_data[0][0]: wrong type, found the text \"one\""},
      {"/kwargs_data/image_data", "/dev/zero",
       "kwargs_data.image_data: found \"/dev/zero\", expected a file in the folder"},
      {"/kwargs_data/image_data", "../x.fits[1]", "kwargs_data.image_data: found \"../x.fits\""},
      {"/kwargs_model/lens_model_list/0", "SIEE",
       "kwargs_model.lens_model_list[0]: not supported, found SIEE, expected SIE"},
      {"/kwargs_model/lens_model_list/0", "INTERPOL", "kwargs_model.lens_model_list[0]: not supported, found INTERPOL"},
      {"/kwargs_model/lens_model_list/0", 5, "kwargs_model.lens_model_list[0]: wrong type, found the number 5"},
      {"/kwargs_model/source_light_model_list/0", "SHAPELETS",
       "kwargs_model.source_light_model_list[0]: not supported, found SHAPELETS"},
      {"/kwargs_model/point_source_model_list", {"LENSED_POSITION"}, "point_source_model_list is not supported"},
      {"/kwargs_lens", json::array(), "kwargs_lens: missing, expected a list of 13"},
      {"/kwargs_lens", {{{"theta_E", 1}}}, "kwargs_lens: found 1 components, expected 13 as in the list of models"},
      {"/kwargs_lens/0/theta_E", 0, "kwargs_lens[0].theta_E: out of range, SIE theta_E is 0 arcsec"},
      {"/kwargs_lens/0/theta_E", nullptr, "kwargs_lens[0].theta_E: missing"},
      {"/kwargs_lens/0/tetha_E", 1, "kwargs_lens[0]: unknown keyword of SIE, expected theta_E"},
      {"/kwargs_lens/0/e1", 0.99, "kwargs_lens[0]: out of range, found e1 = 0.99 and e2 = -0.15"},
      {"/kwargs_lens/9/m", 0, "kwargs_lens[9].m: out of range, MULTIPOLE m is 0, expected a whole number 1 to 100"},
      {"/kwargs_lens/4", json::object(), "kwargs_lens[4]: Rs of NFW is missing"},
      {"/kwargs_source/2/phi_G", 0.1, "kwargs_source[2].phi_G: found a rotation, expected 0"},
      {"/kwargs_source/2/scale", -1, "kwargs_source[2].scale: out of range"},
      {"/kwargs_psf/psf_type", "MOFFAT", "kwargs_psf.psf_type: not supported, found MOFFAT"},
      {"/kwargs_numerics/supersampling_factor", 0, "kwargs_numerics.supersampling_factor: out of range"},
  };
  int number = 0;
  for (const auto& [pointer, value, message] : cases) {
    json bad = good;
    bad[json::json_pointer(pointer)] = value;
    const std::string file = folder.write("bad" + std::to_string(number++) + ".json", bad.dump());
    EXPECT_EQ(complaint(read, file).substr(0, file.size() + 2 + message.size()), file + ": " + message)
        << pointer << " " << value;
  }
}

}  // namespace
}  // namespace einfield
