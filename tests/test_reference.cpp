// A whole step against JAX in double: model, loss, the gradient of every weight, profile parameter and source pixel,
// and ten updates of Adam. The small network is in tests/golden; the paper's network is read where the full reference
// is at hand.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "einfield/backend.hpp"
#include "tests/npy.hpp"

namespace einfield {
namespace {

/// Arrays of one reference problem by name, from the golden file or from a folder of .npy files.
class Reference {
 public:
  explicit Reference(const std::string& golden_file) { std::ifstream(golden_file) >> json_; }
  static Reference folder(const std::string& path) {
    Reference reference;
    reference.folder_ = path;
    std::ifstream(path + "/case.json") >> reference.json_["case"];
    for (const char* name : {"params_grad", "params_grad_shear"}) {
      nlohmann::json whole;
      std::ifstream(path + "/" + name + ".json") >> whole;
      for (const auto& [profile, content] : whole.items()) reference.json_[name][profile] = content.at("grad");
    }
    return reference;
  }
  std::vector<double> array(const std::string& name) const {
    return folder_.empty() ? json_.at(name).get<std::vector<double>>() : read_npy(folder_ + "/" + name + ".npy");
  }
  const nlohmann::json& operator[](const std::string& name) const { return json_.at(name); }
  /// kernel0, bias0, kernel1 … as one flat vector, with a prefix and a suffix to the names.
  std::vector<double> flat(const std::string& prefix, const std::string& kernel, const std::string& bias,
                           const std::string& suffix) const {
    std::vector<double> all;
    for (int layer = 0; layer < 4; ++layer)
      for (const std::string& part : {kernel, bias}) {
        const std::vector<double> values = array(prefix + part + std::to_string(layer) + suffix);
        all.insert(all.end(), values.begin(), values.end());
      }
    return all;
  }

 private:
  Reference() = default;
  std::string folder_;
  nlohmann::json json_;
};

struct Parameter {
  std::string backend;
  bool single, paper;
};

class ReferenceStep : public testing::TestWithParam<Parameter> {
 protected:
  /// The reference of this case, or none: then the test has been marked as skipped.
  std::unique_ptr<Reference> open() {
    if (!GetParam().paper) return std::make_unique<Reference>(std::string(EINFIELD_GOLDEN_DIR) + "/step_small.json");
    const char* folder = std::getenv("EINFIELD_REFERENCE");
    if (!folder) return nullptr;
    return std::make_unique<Reference>(Reference::folder(std::string(folder) + "/mlp_full"));
  }
};

enum class Content { sersic, shear, pixels };

/// Every parameter of every profile is free, so that every gradient appears.
Problem make_problem(const Reference& reference, Content content) {
  const nlohmann::json& setup = reference["case"];
  const nlohmann::json& geometry = setup.at("case");
  Problem problem;
  Observation& observation = problem.observation;
  observation.grid = {geometry.at("nx"), geometry.at("ny"), geometry.at("pixel"), 0, 0, 1};
  observation.image = reference.array("data");
  observation.noise.assign(observation.image.size(), geometry.at("sigma"));
  for (const double used : reference.array("mask")) observation.mask.push_back(used != 0);
  observation.psf = {geometry.at("psf").at("n"), geometry.at("psf").at("n"), reference.array("psf")};

  const auto values_of = [](const ProfileInfo& info, const nlohmann::json& values) {
    std::vector<double> result;
    for (const ParameterInfo& p : info.parameters) result.push_back(values.value(p.name, 0.0));
    return result;
  };
  Model& model = problem.model;
  model.lens.push_back(
      {LensKind::sie, values_of(lens_info(LensKind::sie), setup.at("macro")), std::vector<std::uint8_t>(5, true)});
  const nlohmann::json no_shear = {{"gamma1", 0.0}, {"gamma2", 0.0}};
  if (content != Content::pixels)
    model.lens.push_back(
        {LensKind::shear,
         values_of(lens_info(LensKind::shear), content == Content::shear ? setup.at("shear") : no_shear),
         {true, true, false, false}});
  LightComponent source;
  if (content == Content::pixels) {
    const nlohmann::json& grid = setup.at("source_grid");
    const int nx = grid.at("nx"), ny = grid.at("ny");
    const double pixel = grid.at("pixel"), x0 = grid.at("x0"), y0 = grid.at("y0");
    source.kind = LightKind::pixelated;
    source.grid = {nx, ny, pixel, x0 + 0.5 * (nx - 1) * pixel, y0 + 0.5 * (ny - 1) * pixel};
    source.pixels = reference.array("pixsrc");
    source.pixels_free = true;
  } else {
    source.kind = LightKind::sersic_ellipse;
    source.radius = RadiusKind::major_axis;
    source.values = values_of(light_info(LightKind::sersic_ellipse), setup.at("source"));
    source.free.assign(7, true);
  }
  model.source.push_back(source);
  const std::vector<int> widths = geometry.at("widths");
  model.network = NetworkShape{std::vector<int>(widths.begin() + 1, widths.end() - 1), geometry.at("inscale")};

  problem.initial_parameters = reference.flat("", "kernel", "bias", "");
  const ParameterLayout layout(model);
  for (const double u : layout.initial_scalars()) problem.initial_parameters.push_back(u);
  for (const double v : layout.pixels) problem.initial_parameters.push_back(v);
  return problem;
}

template <class Real>
void expect_close(const std::vector<Real>& found, const std::vector<double>& expected, double tolerance,
                  const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(std::isfinite(found[i])) << what << " " << i;
    largest = std::max(largest, std::abs(expected[i]));
    error = std::max(error, std::abs(static_cast<double>(found[i]) - expected[i]));
  }
  EXPECT_LE(error, tolerance * largest) << what << ", largest " << largest;
}

template <class Real>
void compare(const Reference& reference, const std::string& backend_name) {
  const auto backend = make_backend<Real>(backend_name, {2, 0});
  ASSERT_EQ(backend->name(), backend_name);
  // The demand of the project. In single precision the gradient of a profile parameter is a sum of terms a hundred
  // times larger than itself, each rounded to 6e-8, and the largest weight gradients cancel alike.
  const double tolerance = sizeof(Real) == 8 ? 1e-9 : 1e-5;
  const auto slice = [](const std::vector<Real>& all, std::size_t begin, std::size_t end) {
    return std::vector<Real>(all.begin() + static_cast<std::ptrdiff_t>(begin),
                             all.begin() + static_cast<std::ptrdiff_t>(end));
  };

  for (const Content content : {Content::sersic, Content::shear, Content::pixels}) {
    SCOPED_TRACE(content == Content::sersic ? "sersic" : content == Content::shear ? "shear" : "pixels");
    const std::string prefix = content == Content::pixels ? "pixsrc_" : "";
    const std::string suffix = content == Content::shear ? "_shear" : "";
    const Problem problem = make_problem(reference, content);
    const ParameterLayout layout(problem.model);
    backend->load({problem});
    backend->evaluate(true);
    expect_close(backend->download(Field::model, 0), reference.array(prefix + "model" + suffix), tolerance, "model");
    const double loss = reference.array(prefix + "loss" + suffix).at(0);
    EXPECT_NEAR(backend->state(0).loss, loss, tolerance * loss);
    const std::vector<Real> gradient = backend->download(Field::gradient, 0);
    std::size_t offset = 0;
    for (int layer = 0; layer < 4; ++layer)
      for (const char* part : {"dkernel", "dbias"}) {
        const std::vector<double> expected = reference.array(prefix + part + std::to_string(layer) + suffix);
        expect_close(slice(gradient, offset, offset + expected.size()), expected, tolerance,
                     part + std::to_string(layer));
        offset += expected.size();
      }
    ASSERT_EQ(offset, layout.n_network);

    // The reference differentiates with respect to physical values; the adjoint of the transforms carries that over.
    std::vector<double> table_bar(layout.table.size(), 0.0);
    const auto place = [&](std::size_t component, const ProfileInfo& info, const nlohmann::json& grad) {
      for (std::size_t i = 0; i < info.parameters.size(); ++i)
        table_bar[component * kMaxProfileParameters + i] = grad.value(info.parameters[i].name, 0.0);
    };
    if (content == Content::pixels) {
      place(0, lens_info(LensKind::sie), reference["case"].at("sie_grad_pixsrc"));
    } else {
      const nlohmann::json& grad = reference["params_grad" + suffix];
      place(0, lens_info(LensKind::sie), grad.at("sie"));
      place(1, lens_info(LensKind::shear), grad.at("shear"));
      place(2, light_info(LightKind::sersic_ellipse), grad.at("sersic"));
    }
    const std::vector<double> u = layout.initial_scalars();
    std::vector<double> expected;
    for (std::size_t i = 0; i < u.size(); ++i)
      expected.push_back(transform_adjoint(layout.free.data(), static_cast<int>(i), u.data(), table_bar.data()));
    expect_close(slice(gradient, layout.n_network, layout.n_network + u.size()), expected, tolerance,
                 "profile parameters");
    if (content == Content::pixels)
      expect_close(slice(gradient, layout.n_network + u.size(), gradient.size()), reference.array("pixsrc_grad"),
                   tolerance, "source pixels");
  }

  // Ten updates of the network alone.
  Problem problem = make_problem(reference, Content::sersic);
  for (auto& lens : problem.model.lens) lens.free.assign(lens.free.size(), false);
  problem.model.source[0].free.assign(7, false);
  problem.initial_parameters.resize(ParameterLayout(problem.model).n_network);
  backend->load({problem});
  std::vector<Real> losses;
  for (int k = 0; k < 10; ++k) {
    backend->step();
    losses.push_back(static_cast<Real>(backend->state(0).loss));
  }
  backend->evaluate(false);
  losses.push_back(static_cast<Real>(backend->state(0).loss));
  // Adam divides by the root of the second moment: early updates amplify the rounding of small gradients, in single
  // precision to some 1e-4 of a weight's movement.
  const double adam_tolerance = sizeof(Real) == 8 ? 1e-9 : 1e-4;
  expect_close(losses, reference.array("adam_losses"), adam_tolerance, "losses of ten updates");
  const std::vector<Real> weights = backend->download(Field::parameters, 0);
  const NetworkShape& shape = *problem.model.network;
  expect_close(slice(weights, shape.kernel_offset(3), shape.bias_offset(3)), reference.array("adam10_kernel_last"),
               adam_tolerance, "last kernel after ten updates");
  expect_close(slice(weights, shape.bias_offset(0), shape.kernel_offset(1)), reference.array("adam10_bias0"),
               adam_tolerance, "first bias after ten updates");
}

TEST_P(ReferenceStep, AgreesWithJax) {
  const auto reference = open();
  if (!reference) GTEST_SKIP() << "EINFIELD_REFERENCE does not name the full reference data";
  try {
    if (GetParam().single)
      compare<float>(*reference, GetParam().backend);
    else
      compare<double>(*reference, GetParam().backend);
  } catch (const BackendUnavailable& error) {
    GTEST_SKIP() << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(Steps, ReferenceStep,
                         testing::Values(Parameter{"cpu", false, false}, Parameter{"cpu", true, false},
                                         Parameter{"cpu", false, true}, Parameter{"cpu", true, true},
                                         Parameter{"cuda", false, false}, Parameter{"cuda", true, false},
                                         Parameter{"cuda", false, true}, Parameter{"cuda", true, true}),
                         [](const auto& test) {
                           return test.param.backend + (test.param.single ? "_float_" : "_double_") +
                                  (test.param.paper ? "paper" : "small");
                         });

}  // namespace
}  // namespace einfield
