// Lens and brightness profiles, and the paper's three systems, against lenstronomy 1.14.2 and JAX in double. A small
// part is in tests/golden; all of it is read where the full reference is at hand (EINFIELD_REFERENCE).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "einfield/backend.hpp"
#include "einfield/render.hpp"
#include "host/files/fits_io.hpp"
#include "tests/tolerance.hpp"

namespace einfield {
namespace {

using Json = nlohmann::json;

std::string reference_folder() {
  const char* folder = std::getenv("EINFIELD_REFERENCE");
  return folder ? folder : "";
}

Json read_json(const std::string& path) {
  std::ifstream stream(path);
  EXPECT_TRUE(stream.good()) << path;
  return Json::parse(stream);
}

/// Lens profiles that the golden file has and the full reference lacks: FLEXION, TNFW (three) and MULTIPOLE of m = 1.
constexpr int kGoldenOnly = 5;

/// The golden file or the full reference: the same three documents.
Json documents(bool full) {
  if (!full) return read_json(std::string(EINFIELD_GOLDEN_DIR) + "/profiles.json");
  Json all;
  for (const char* name : {"profiles", "sersic", "profiles_more"})
    all[name] = read_json(reference_folder() + "/" + name + ".json");
  return all;
}

LensKind lens_kind(const std::string& name) {
  for (int k = 0; k < kLensKinds; ++k)
    if (name == lens_info(static_cast<LensKind>(k)).name) return static_cast<LensKind>(k);
  ADD_FAILURE() << "no lens profile is named " << name;
  return LensKind::sie;
}

template <class Real>
std::vector<Real> values_of(const ProfileInfo& info, const Json& parameters) {
  std::vector<Real> p(kMaxProfileParameters);
  for (std::size_t i = 0; i < info.parameters.size(); ++i)
    p[i] = static_cast<Real>(parameters.value(info.parameters[i].name, info.parameters[i].default_value));
  return p;
}

std::vector<Vec2<double>> positions(const Json& document) {
  std::vector<Vec2<double>> points;
  if (document.contains("points"))
    for (const Json& point : document.at("points")) points.push_back({point.at(0), point.at(1)});
  else
    for (std::size_t i = 0; i < document.at("x").size(); ++i)
      points.push_back({document.at("x")[i], document.at("y")[i]});
  return points;
}

/// Largest difference, over the largest expected value (or 1 where all are 0). NaN when anything is.
double array_error(const std::vector<double>& found, const std::vector<double>& expected) {
  EXPECT_EQ(found.size(), expected.size());
  double error = 0, largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double wrong = std::abs(found[i] - expected[i]);
    if (!(wrong <= error)) error = wrong;
    largest = std::max(largest, std::abs(expected[i]));
  }
  return error / (largest > 0 ? largest : 1);
}

struct LensColumn {
  const char *name, *other_name;
  double (*of)(const LensValues<double>&);
};
constexpr LensColumn kLensColumns[] = {{"psi", "psi", [](const LensValues<double>& v) { return v.psi; }},
                                       {"ax", "alpha_x", [](const LensValues<double>& v) { return v.alpha.x; }},
                                       {"ay", "alpha_y", [](const LensValues<double>& v) { return v.alpha.y; }},
                                       {"kappa", "kappa", [](const LensValues<double>& v) { return v.kappa; }},
                                       {"g1", "gamma1", [](const LensValues<double>& v) { return v.gamma1; }},
                                       {"g2", "gamma2", [](const LensValues<double>& v) { return v.gamma2; }}};

template <class Real>
LensValues<double> lens_at(LensKind kind, const std::vector<Real>& p, Vec2<double> theta) {
  const LensValues<Real> v =
      lens_values(kind, p.data(), Vec2<Real>{static_cast<Real>(theta.x), static_cast<Real>(theta.y)});
  return {v.psi, {v.alpha.x, v.alpha.y}, v.kappa, v.gamma1, v.gamma2};
}

/// @return number of arrays compared
template <class Real>
int compare_lenses(const Json& cases, const std::vector<Vec2<double>>& points, double tolerance) {
  int compared = 0;
  for (const Json& c : cases) {
    const std::string name = c.contains("name") ? c.at("name") : c.at("profile");
    const LensKind kind = lens_kind(name);
    const std::vector<Real> p =
        values_of<Real>(lens_info(kind), c.contains("params") ? c.at("params") : c.at("parameters"));
    for (const LensColumn& column : kLensColumns) {
      const char* key = c.contains(column.name) ? column.name : column.other_name;
      if (!c.contains(key) || c.at(key).at(0).is_null()) continue;
      std::vector<double> found;
      for (const Vec2<double>& theta : points) found.push_back(column.of(lens_at(kind, p, theta)));
      double allowed = tolerance;
      // lenstronomy differentiates the deflection of this profile by a one-sided difference.
      if (kind == LensKind::nfw_ellipse_potential && &column >= kLensColumns + 3)
        allowed = tolerance::kNumericalHessian;
      EXPECT_LE(array_error(found, c.at(key).get<std::vector<double>>()), allowed) << name << " " << key;
      ++compared;
    }
  }
  return compared;
}

/// Brightness of the cases of one document. The Sérsic document measures R_sersic on the major axis, the other says.
template <class Real>
int compare_lights(const Json& cases, const std::vector<Vec2<double>>& points, double tolerance) {
  for (const Json& c : cases) {
    const bool sersic = c.value("profile", "SERSIC_ELLIPSE") == "SERSIC_ELLIPSE";
    const LightKind kind = sersic ? LightKind::sersic_ellipse : LightKind::gaussian;
    const RadiusKind radius =
        c.value("radius", "major_axis") == "major_axis" ? RadiusKind::major_axis : RadiusKind::product_average;
    const std::vector<Real> p =
        values_of<Real>(light_info(kind), c.contains("params") ? c.at("params") : c.at("parameters"));
    std::vector<double> found;
    for (const Vec2<double>& theta : points)
      found.push_back(light_brightness<Real>({static_cast<int>(kind), radius, 0, {}}, p.data(), nullptr,
                                             {static_cast<Real>(theta.x), static_cast<Real>(theta.y)}));
    EXPECT_LE(array_error(found, c.at(c.contains("value") ? "value" : "brightness").get<std::vector<double>>()),
              tolerance)
        << c.dump();
  }
  return static_cast<int>(cases.size());
}

template <class Real>
void compare_documents(const Json& all, double tolerance, int more_lenses) {
  const Json &profiles = all.at("profiles"), &sersic = all.at("sersic"), &more = all.at("profiles_more");
  // Twelve cases; the shear of NIE is not in the reference.
  EXPECT_EQ(compare_lenses<Real>(profiles.at("profiles"), positions(profiles), tolerance), (11 + more_lenses) * 6 + 4);
  EXPECT_EQ(compare_lenses<Real>(more.at("lens"), positions(more), tolerance), 4 * 6);
  EXPECT_EQ(compare_lights<Real>(sersic.at("cases"), positions(sersic), tolerance), 3);
  EXPECT_EQ(compare_lights<Real>(more.at("light"), positions(more), tolerance), 2);
}

TEST(ReferenceProfiles, GoldenNumbersInDouble) {
  compare_documents<double>(documents(false), tolerance::kReference, kGoldenOnly);
}
TEST(ReferenceProfiles, GoldenNumbersInSingle) {
  compare_documents<float>(documents(false), tolerance::kSingle, kGoldenOnly);
}

TEST(ReferenceProfiles, AllNumbers) {
  if (reference_folder().empty()) GTEST_SKIP() << "EINFIELD_REFERENCE is not set";
  compare_documents<double>(documents(true), tolerance::kReference, 0);
  compare_documents<float>(documents(true), tolerance::kSingle, 0);
}

// ---- The systems of the paper ----

class ReferenceSystems : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (reference_folder().empty()) GTEST_SKIP() << "EINFIELD_REFERENCE is not set";
    setup_ = read_json(reference_folder() + "/" + GetParam() + ".json");
  }
  std::vector<double> hdu(const std::string& name) const {
    return read_fits(reference_folder() + "/" + GetParam() + ".fits", name).values;
  }
  std::vector<LensComponent> lenses(const char* block) const {
    std::vector<LensComponent> result;
    for (const Json& entry : setup_.at(block)) {
      const LensKind kind = lens_kind(entry.at(0));
      std::vector<double> p = values_of<double>(lens_info(kind), entry.at(1));
      p.resize(lens_info(kind).parameters.size());
      result.push_back({kind, p, std::vector<std::uint8_t>(p.size(), false)});
    }
    return result;
  }
  Grid grid() const {
    return {setup_.at("nx"), setup_.at("ny"), setup_.at("pixel"), setup_.at("center")[0], setup_.at("center")[1], 1};
  }

  Json setup_;
};

/// Sum over components of one quantity at every pixel.
template <class Real>
std::vector<double> map_of(const std::vector<LensComponent>& lenses, const Grid& grid, const LensColumn& column) {
  std::vector<double> map(static_cast<std::size_t>(grid.n_pixels()));
  for (const LensComponent& lens : lenses) {
    const std::vector<Real> p(lens.values.begin(), lens.values.end());
    for (int i = 0; i < grid.n_pixels(); ++i)
      map[static_cast<std::size_t>(i)] += column.of(lens_at(lens.kind, p, grid.pixel(i)));
  }
  return map;
}

TEST_P(ReferenceSystems, MapsOfTheSmoothModelAndThePerturber) {
  const char* suffixes[] = {"PSI", "AX", "AY", "KAPPA", "G1", "G2"};
  for (const auto& [block, prefix] : {std::pair{"macro", "MAC"}, std::pair{"pert", "PER"}})
    for (std::size_t k = 0; k < 6; ++k) {
      const std::vector<double> expected = hdu(std::string(prefix) + suffixes[k]);
      // The shear of an SIE is -kappa exp(2 i phi) there, without the core.
      const double allowed = k > 3 ? tolerance::kWithoutCore : tolerance::kReference;
      EXPECT_LE(array_error(map_of<double>(lenses(block), grid(), kLensColumns[k]), expected), allowed)
          << prefix << suffixes[k];
      EXPECT_LE(array_error(map_of<float>(lenses(block), grid(), kLensColumns[k]), expected), tolerance::kSingle)
          << prefix << suffixes[k];
    }
}

TEST_P(ReferenceSystems, SourcePlanePositions) {
  std::vector<LensComponent> all = lenses("macro");
  for (const LensComponent& lens : lenses("pert")) all.push_back(lens);
  std::vector<double> x = map_of<double>(all, grid(), kLensColumns[1]),
                      y = map_of<double>(all, grid(), kLensColumns[2]);
  for (int i = 0; i < grid().n_pixels(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    x[at] = grid().pixel(i).x - x[at];
    y[at] = grid().pixel(i).y - y[at];
  }
  EXPECT_LE(array_error(x, hdu("BX")), tolerance::kReference);
  EXPECT_LE(array_error(y, hdu("BY")), tolerance::kReference);
}

template <class Real>
void compare_images(Problem problem, const std::vector<double>& unconvolved, const std::vector<double>& convolved,
                    double tolerance) {
  const auto backend = make_backend<Real>("cpu", {2, 0});
  backend->load({problem});
  backend->network();
  backend->render();
  backend->convolve();
  const std::vector<Real> image = backend->download(Field::image, 0), model = backend->download(Field::model, 0);
  EXPECT_LE(array_error({image.begin(), image.end()}, unconvolved), tolerance);
  EXPECT_LE(array_error({model.begin(), model.end()}, convolved), tolerance);
}

TEST_P(ReferenceSystems, ImagesBeforeAndAfterThePsf) {
  Problem problem;
  Observation& observation = problem.observation;
  observation.grid = grid();
  observation.image = hdu("NOISY");
  observation.noise.assign(observation.image.size(), setup_.at("sigma"));
  observation.mask.assign(observation.image.size(), 1);
  const FitsImage psf = read_fits(reference_folder() + "/" + GetParam() + ".fits", "PSF");
  observation.psf = {psf.nx, psf.ny, psf.values};
  problem.model.lens = lenses("macro");
  for (const LensComponent& lens : lenses("pert")) problem.model.lens.push_back(lens);
  for (const Json& source : setup_.at("source")) {
    LightComponent light;
    light.kind = LightKind::sersic_ellipse;
    light.radius = RadiusKind::major_axis;
    light.values = values_of<double>(light_info(light.kind), source);
    light.values.resize(7);
    light.free.assign(7, false);
    problem.model.source.push_back(light);
  }
  problem.model.lens[0].free[0] = true;  // a backend refuses a problem with nothing to fit
  problem.initial_parameters = ParameterLayout(problem.model).initial_scalars();
  // The brightness is steep: at the peak, dI/dβ turns a rounding of the deflection into ten of the image.
  compare_images<double>(problem, hdu("UNCONV"), hdu("CONV"), 10 * tolerance::kReference);
  compare_images<float>(problem, hdu("UNCONV"), hdu("CONV"), tolerance::kSingle);
}

INSTANTIATE_TEST_SUITE_P(Paper, ReferenceSystems, testing::Values("sie_perturber", "shear_perturber", "no_perturber"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace einfield
