// The transforms that keep free parameters in their range, the layout of the flat vector, the checks of a model.
#include "einfield/error.hpp"
#include "einfield/model.hpp"
#include "einfield/tangent.hpp"
#include "host/model/parameter_slots.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>

namespace einfield {
namespace {

LensComponent sie(std::vector<double> values, std::vector<std::uint8_t> free) {
  return {LensKind::sie, std::move(values), std::move(free)};
}

/// A NETWORK component of 2 → 3 → 1 with weights 0, 1, 2, …
LightComponent network_component(bool free) {
  LightComponent c;
  c.kind = LightKind::network;
  c.values = {4, 0.1, -0.2};
  c.free = {false, false, false};
  c.network = NetworkShape{{3}, 2.0};
  for (int i = 0; i < 13; ++i) c.weights.push_back(i);
  c.weights_free = free;
  return c;
}

Model example() {
  Model model;
  model.lens.push_back(sie({1.6, 0.15, -0.04, 0.01, -0.02}, {true, true, true, true, false}));
  model.lens.push_back({LensKind::shear, {0.03, -0.02, 0, 0}, {true, true, false, false}});
  LightComponent sersic;
  sersic.kind = LightKind::sersic_ellipse;
  sersic.values = {10, 1.2, 1.5, -0.09, 0.03, 0.4, 0.15};
  sersic.free = {true, true, true, false, true, false, false};
  model.source.push_back(sersic);
  LightComponent pixels;
  pixels.kind = LightKind::pixelated;
  pixels.grid = {3, 2, 0.5, 0, 0};
  pixels.pixels = {1, 2, 3, 4, 5, 6};
  pixels.pixels_free = true;
  model.source.push_back(pixels);
  model.network = NetworkShape{{4, 3}, 1.0};
  return model;
}

TEST(Model, LayoutCountsAndNamesWhatIsFree) {
  const ParameterLayout layout(example());
  EXPECT_EQ(layout.n_network, 2u * 4 + 4 + 4 * 3 + 3 + 3 + 1);
  const std::vector<std::string> names = {"lens.0.theta_E",    "lens.0.e1",     "lens.0.e2",    "lens.0.center_x",
                                          "lens.1.gamma1",     "lens.1.gamma2", "source.0.amp", "source.0.R_sersic",
                                          "source.0.n_sersic", "source.0.e2"};
  EXPECT_EQ(layout.names, names);
  EXPECT_EQ(layout.free_pixels, (std::vector<int>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(layout.size(), layout.n_network + names.size() + 6);
}

TEST(Model, StartingValuesComeBack) {
  const Model model = example();
  const ParameterLayout layout(model);
  std::vector<double> parameters(layout.n_network, 0.0);
  for (const double u : layout.initial_scalars()) parameters.push_back(u);
  for (const double v : {6.0, 5.0, 4.0, 3.0, 2.0, 1.0}) parameters.push_back(v);
  const Model back = with_parameters(model, layout, parameters);
  for (std::size_t i = 0; i < model.lens.size(); ++i)
    for (std::size_t k = 0; k < model.lens[i].values.size(); ++k)
      EXPECT_NEAR(back.lens[i].values[k], model.lens[i].values[k], 1e-14);
  for (std::size_t k = 0; k < model.source[0].values.size(); ++k)
    EXPECT_NEAR(back.source[0].values[k], model.source[0].values[k], 1e-13);
  EXPECT_EQ(back.source[1].pixels, (std::vector<double>{6, 5, 4, 3, 2, 1}));
}

TEST(Model, BoundsAreKeptAndTheirTransformsComeBack) {
  Model model = example();
  model.lens[0].priors.resize(5);
  model.lens[0].priors[0] = {0.5, 2.0};
  model.lens[0].priors[1] = {-0.3, 0.6, 0.1, 0.05};  // e1 beside a free e2
  const ParameterLayout layout(model);
  EXPECT_EQ(layout.free[0].kind, TransformKind::logistic);
  EXPECT_EQ(layout.free[1].kind, TransformKind::logistic);
  EXPECT_EQ(layout.free[2].kind, TransformKind::disk);
  EXPECT_EQ(layout.free[2].partner, -1);
  EXPECT_DOUBLE_EQ(layout.free[2].upper, std::sqrt(1 - 0.36));
  ASSERT_EQ(layout.priors.size(), 1u);
  EXPECT_EQ(layout.priors[0].free, 1);
  EXPECT_EQ(layout.priors[0].mean, 0.1);
  const std::vector<double> start = layout.physical(layout.initial_scalars().data());
  EXPECT_NEAR(start[0], 1.6, 1e-14);
  EXPECT_NEAR(start[1], 0.15, 1e-14);
  EXPECT_NEAR(start[2], -0.04, 1e-14);
  std::vector<double> u = layout.initial_scalars();
  for (const double far : {-30.0, 30.0}) {
    u[0] = u[1] = u[2] = far;
    const std::vector<double> values = layout.physical(u.data());
    EXPECT_GE(values[0], 0.5);
    EXPECT_LE(values[0], 2.0);
    EXPECT_LT(values[1] * values[1] + values[2] * values[2], 1);
  }
  // However far the optimizer has moved, its parameters give a valid model.
  for (const double far : {-1e3, 1e3}) {
    std::vector<double> parameters = layout.initial_parameters(std::vector<double>(layout.n_network, 0.0));
    parameters[layout.n_network] = parameters[layout.n_network + 8] = far;  // theta_E, n_sersic
    EXPECT_NO_THROW(ParameterLayout(with_parameters(model, layout, parameters)));
  }
}

TEST(Model, BoundsAndPriorsThatCannotBeAreRefused) {
  const auto refused = [](std::size_t i, const ParameterPrior& prior) {
    Model model = example();
    model.lens[0].priors.resize(5);
    model.lens[0].priors[i] = prior;
    try {
      model.validate();
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refused(0, {0.5, 2}), "");
  EXPECT_NE(refused(0, {1.7, 2}).find("lens.0.theta_E = 1.6 arcsec, expected a value between its bounds 1.7 and 2"),
            std::string::npos);
  EXPECT_NE(refused(0, {-1, 2}).find("expected bounds within 0 to inf"), std::string::npos);
  EXPECT_NE(refused(0, {0.5, kInfinity}).find("a single bound"), std::string::npos);
  EXPECT_NE(refused(0, {-kInfinity, kInfinity, 1, -1}).find("a prior with sigma = -1"), std::string::npos);
  EXPECT_NE(refused(4, {-1, 1}).find("lens.0.center_y: has bounds or a prior but is fixed"), std::string::npos);
  Model model = example();
  model.lens[0].priors.resize(5);
  model.lens[0].priors[1] = {-0.8, 0.8};
  model.lens[0].priors[2] = {-0.8, 0.8};
  EXPECT_ANY_THROW(model.validate());
  model.lens[0].priors.resize(2);
  EXPECT_ANY_THROW(model.validate());
}

TEST(Model, WeightsOfTheNetworkComponentComeLast) {
  for (const bool lensed : {true, false}) {
    Model model = example();
    (lensed ? model.source : model.lens_light).push_back(network_component(true));
    EXPECT_EQ(network_light_index(model), 4);
    ASSERT_EQ(network_light(model), &(lensed ? model.source : model.lens_light).back());
    const ParameterLayout before(example()), layout(model);
    EXPECT_EQ(layout.n_network, before.n_network);
    EXPECT_EQ(layout.names, before.names);
    EXPECT_EQ(layout.light_weights_offset(), before.size());
    EXPECT_EQ(layout.n_light_weights, 13u);
    EXPECT_EQ(layout.size(), before.size() + 13);

    std::vector<double> parameters = layout.initial_parameters(std::vector<double>(layout.n_network, 0.5));
    ASSERT_EQ(parameters.size(), layout.size());
    EXPECT_EQ(parameters[layout.n_network - 1], 0.5);
    EXPECT_EQ(parameters[layout.light_weights_offset() - 1], 6);
    EXPECT_EQ(parameters.back(), 12);
    parameters.back() = -7;
    EXPECT_EQ(network_light(with_parameters(model, layout, parameters))->weights.back(), -7);
    EXPECT_THROW(layout.initial_parameters({}), InvalidInput);
  }
}

TEST(Model, FixedWeightsAreNoParameters) {
  Model model = example();
  model.source.push_back(network_component(false));
  const ParameterLayout layout(model);
  EXPECT_EQ(layout.size(), ParameterLayout(example()).size());
  EXPECT_EQ(layout.n_light_weights, 0u);
  EXPECT_EQ(layout.light_weights.size(), 13u);
  const std::vector<double> parameters = layout.initial_parameters(std::vector<double>(layout.n_network, 0.0));
  EXPECT_EQ(network_light(with_parameters(model, layout, parameters))->weights, model.source.back().weights);
  EXPECT_EQ(network_light(example()), nullptr);
  EXPECT_EQ(network_light_index(example()), -1);
}

TEST(Model, FreePixelsOfTheSourceAndWhereTheyAre) {
  Model model = example();
  LightComponent more = model.source[1];
  more.grid.nx = 6;
  more.grid.ny = 1;
  LightComponent fixed = more;
  fixed.pixels_free = false;
  model.source.push_back(fixed);
  model.source.push_back(more);
  model.lens_light.push_back(more);  // not the source's
  const std::size_t first = ParameterLayout(model).n_network + 10;
  const std::vector<FreePixels> blocks = free_source_pixels(model);
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(blocks[0].nx, 3);
  EXPECT_EQ(blocks[0].ny, 2);
  EXPECT_EQ(blocks[0].offset, first);
  EXPECT_EQ(blocks[1].nx, 6);
  EXPECT_EQ(blocks[1].offset, first + 6);
}

TEST(Model, FreeParametersCannotLeaveTheirRange) {
  const Model model = example();
  const ParameterLayout layout(model);
  for (const double extreme : {-30.0, -3.0, 0.0, 3.0, 30.0}) {
    const std::vector<double> parameters(layout.size(), extreme);
    EXPECT_NO_THROW(with_parameters(model, layout, parameters).validate()) << extreme;
  }
}

TEST(Model, TransformAdjointAgainstDifferences) {
  const ParameterLayout layout(example());
  std::vector<double> u = layout.initial_scalars();
  for (std::size_t i = 0; i < u.size(); ++i) u[i] += 0.1 * std::sin(1.0 + static_cast<double>(i));
  std::vector<double> table_bar(layout.table.size());
  for (std::size_t i = 0; i < table_bar.size(); ++i) table_bar[i] = std::cos(3.0 * static_cast<double>(i));
  const auto value = [&](const std::vector<double>& at) {
    double sum = 0;
    for (std::size_t i = 0; i < at.size(); ++i)
      sum += table_bar[static_cast<std::size_t>(layout.free[i].slot)] *
             transform(layout.free.data(), static_cast<int>(i), at.data());
    return sum;
  };
  const double h = std::cbrt(std::numeric_limits<double>::epsilon());
  for (std::size_t i = 0; i < u.size(); ++i) {
    std::vector<double> up = u, down = u;
    up[i] += h;
    down[i] -= h;
    const double difference = (value(up) - value(down)) / (2 * h);
    // Central differences err by h² times the third derivative: 1e-10 of the values here.
    EXPECT_NEAR(transform_adjoint(layout.free.data(), static_cast<int>(i), u.data(), table_bar.data()), difference,
                1e-8 * (1 + std::abs(difference)))
        << layout.names[i];
  }
}

TEST(Model, TransformTangentAgainstDifferencesAndTheAdjoint) {
  const ParameterLayout layout(example());
  std::vector<double> u = layout.initial_scalars(), u_dot(u.size()), up = u, down = u;
  const double h = std::cbrt(std::numeric_limits<double>::epsilon());
  for (std::size_t i = 0; i < u.size(); ++i) {
    u[i] += 0.1 * std::sin(1.0 + static_cast<double>(i));
    u_dot[i] = std::cos(2.0 * static_cast<double>(i));
    up[i] = u[i] + h * u_dot[i];
    down[i] = u[i] - h * u_dot[i];
  }
  std::vector<double> table_bar(layout.table.size());
  for (std::size_t i = 0; i < table_bar.size(); ++i) table_bar[i] = std::cos(3.0 * static_cast<double>(i));
  double forward = 0, backward = 0, size = 0;
  for (std::size_t k = 0; k < u.size(); ++k) {
    const int i = static_cast<int>(k);
    const double tangent = transform_tangent(layout.free.data(), i, u.data(), u_dot.data());
    const double difference =
        (transform(layout.free.data(), i, up.data()) - transform(layout.free.data(), i, down.data())) / (2 * h);
    EXPECT_NEAR(tangent, difference, 1e-8 * (1 + std::abs(difference))) << layout.names[k];
    forward += tangent * table_bar[static_cast<std::size_t>(layout.free[k].slot)];
    backward += u_dot[k] * transform_adjoint(layout.free.data(), i, u.data(), table_bar.data());
    size += std::abs(tangent);
  }
  EXPECT_NEAR(forward, backward, 1e-14 * size);
}

TEST(Model, OneFreeEllipticityStaysInTheDiskOfTheOther) {
  Model model;
  model.lens.push_back(sie({1.0, 0.1, 0.8, 0, 0}, {false, true, false, false, false}));
  const ParameterLayout layout(model);
  ASSERT_EQ(layout.free.size(), 1u);
  EXPECT_NEAR(layout.free[0].upper, 0.6, 1e-15);
  const double far = 1e3;
  EXPECT_LT(transform(layout.free.data(), 0, &far), 0.6);
}

void expect_invalid(const Model& model, const std::string& part) {
  try {
    model.validate();
    ADD_FAILURE() << "accepted; expected a complaint about " << part;
  } catch (const InvalidInput& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Model, ValidateNamesParameterValueAndRange) {
  Model model = example();
  model.lens[0].values[0] = -1.2;
  expect_invalid(model, "lens.0.theta_E = -1.2 arcsec, expected > 0");
  model = example();
  model.lens[0].values[1] = 0.9;
  model.lens[0].values[2] = 0.5;
  expect_invalid(model, "lens.0: e1 = 0.9, e2 = 0.5, expected e1² + e2² < 1");
  model = example();
  model.source[0].values[1] = std::numeric_limits<double>::quiet_NaN();
  expect_invalid(model, "source.0.R_sersic = nan arcsec, expected a finite number");
  model = example();
  model.source[1].pixels.pop_back();
  expect_invalid(model, "source.1: 5 pixel values for a grid of 3 x 2");
  model = example();
  model.source.push_back(network_component(true));
  model.source[2].weights.pop_back();
  expect_invalid(model, "source.2: 12 weights for a network of 13");
  model.source[2] = network_component(true);
  model.source[2].weights[3] = std::numeric_limits<double>::infinity();
  expect_invalid(model, "source.2: a weight is not finite");
  model.source[2] = network_component(true);
  model.source[2].network.hidden = {};
  expect_invalid(model, "source.2: hidden has 0 layers, expected 1 to 16, or Fourier features");
  model.source[2] = network_component(true);
  model.source[2].values[0] = 0;
  expect_invalid(model, "source.2.amp = 0 image unit, expected > 0");
  model.source[2] = network_component(true);
  model.lens_light.push_back(network_component(false));
  expect_invalid(model, "2 NETWORK components, expected at most one");
  model = example();
  model.network->hidden = {0};
  EXPECT_THROW(model.validate(), InvalidInput);
}

TEST(Model, SlotsHaveNames) {
  const Model model = example();
  EXPECT_EQ(slot_name(model, 0), "lens.0.theta_E");
  EXPECT_EQ(slot_name(model, kMaxProfileParameters + 1), "lens.1.gamma2");
  EXPECT_EQ(slot_name(model, 2 * kMaxProfileParameters + 2), "source.0.n_sersic");
}

// ---- relations ------------------------------------------------------------------------------------------------

/// A lens of which center and ellipticity follow its light.
Model related() {
  Model model;
  model.lens.push_back(sie({1.6, 0, 0, 0, 0}, {true, false, false, false, false}));
  model.lens[0].follows.resize(5);
  model.lens[0].follows[1] = {"lens_light.0.e1", 0.5};
  model.lens[0].follows[2] = {"lens_light.0.e2", 0.5};
  model.lens[0].follows[3] = {"lens_light.0.center_x"};
  model.lens[0].follows[4] = {"lens_light.0.center_y", 1, -0.1};
  LightComponent light;
  light.kind = LightKind::sersic_ellipse;
  light.values = {10, 1.2, 4, 0.2, -0.1, 0.02, 0.05};
  light.free = {true, true, true, true, true, true, false};
  model.lens_light.push_back(light);
  return model;
}

TEST(Relations, ValuesFollowAndAreNotFree) {
  Model model = related();
  follow(model);
  EXPECT_EQ(model.lens[0].values, (std::vector<double>{1.6, 0.1, -0.05, 0.02, 0.05 - 0.1}));
  const ParameterLayout layout(model);
  EXPECT_EQ(layout.names, (std::vector<std::string>{"lens.0.theta_E", "lens_light.0.amp", "lens_light.0.R_sersic",
                                                    "lens_light.0.n_sersic", "lens_light.0.e1", "lens_light.0.e2",
                                                    "lens_light.0.center_x"}));
  ASSERT_EQ(layout.tied.size(), 3u) << "center_y of the light is fixed, and so is what follows it";
  EXPECT_EQ(layout.slots_of(4), (std::vector<std::pair<int, double>>{{kMaxProfileParameters + 3, 1.0}, {1, 0.5}}));

  std::vector<double> values;
  for (const FreeParameter<double>& f : layout.free) values.push_back(layout.table[static_cast<std::size_t>(f.slot)]);
  values[4] = -0.3;
  values[6] = 0.7;
  const Model moved = with_parameters(model, layout, layout.unconstrained(values));
  EXPECT_NEAR(moved.lens[0].values[1], -0.15, 1e-14);
  EXPECT_NEAR(moved.lens[0].values[3], 0.7, 1e-14);
  EXPECT_EQ(moved.lens[0].values[4], 0.05 - 0.1);
}

TEST(Relations, OfARelationAreFollowedToTheEnd) {
  Model model = related();
  model.lens.push_back({LensKind::shear, {0.01, 0.02, 0, 0}, {true, true, false, false}});
  model.lens[1].follows.resize(4);
  model.lens[1].follows[2] = {"lens.0.center_y", 2, 1};
  follow(model);
  EXPECT_NEAR(model.lens[1].values[2], 2 * (0.05 - 0.1) + 1, 1e-15);
  model.lens[0].priors.resize(5);
  model.lens[0].priors[0] = {-kInfinity, kInfinity, 0, 0.1, {"lens.1.ra_0", 3, 0.5}};
  const ParameterLayout layout(model);
  ASSERT_EQ(layout.priors.size(), 1u);
  EXPECT_EQ(layout.priors[0].other, -1) << "the other parameter is fixed";
  EXPECT_NEAR(layout.priors[0].mean, 3 * model.lens[1].values[2] + 0.5, 1e-14);
}

TEST(Relations, WrongOnesAreRefused) {
  const auto expect = [](const std::string& message, auto&& change) {
    Model model = related();
    change(model);
    std::string found = "none";
    try {
      model.validate();
    } catch (const InvalidInput& error) {
      found = error.what();
      EXPECT_THROW(follow(model), InvalidInput);
    }
    EXPECT_NE(found.find(message), std::string::npos) << found << "\nexpected: " << message;
  };
  expect("none", [](Model&) {});
  expect("lens.0.center_x: no such parameter, found \"lens_light.0.centre_x\", expected lens_light.0.center_x",
         [](Model& m) { m.lens[0].follows[3].of = "lens_light.0.centre_x"; });
  expect("lens.0.center_x: free although it follows", [](Model& m) { m.lens[0].free[3] = true; });
  expect("lens.0.center_x: follows itself", [](Model& m) { m.lens[0].follows[3].of = "lens.0.center_x"; });
  expect("lens.0.center_x: follows itself", [](Model& m) {
    m.lens[0].follows[3].of = "lens.0.center_y";
    m.lens[0].follows[4].of = "lens.0.center_x";
  });
  expect("lens.0.theta_E: can leave its range, found \"lens_light.0.R_sersic - 0.5\"", [](Model& m) {
    m.lens[0].free[0] = false;
    m.lens[0].follows[0] = {"lens_light.0.R_sersic", 1, -0.5};
  });
  expect("lens.0.e2: the ellipticity can leave its range", [](Model& m) { m.lens[0].follows[1].factor = 1.2; });
  expect("lens.0.e2: the ellipticity can leave its range", [](Model& m) {
    m.lens[0].follows[2] = {"lens_light.0.e1", 0.9};
  });
  expect("none", [](Model& m) { m.lens[0].follows[2] = {}; });  // e2 = 0 is fixed
  expect("lens.0.prior.theta_E: the mean follows the parameter itself", [](Model& m) {
    m.lens[0].priors.resize(5);
    m.lens[0].priors[0] = {-kInfinity, kInfinity, 0, 0.1, {"lens.0.theta_E"}};
  });
  expect("4 relations, expected 5", [](Model& m) { m.lens[0].follows.pop_back(); });
}

TEST(Relations, AreReadAndWrittenAsText) {
  const auto same = [](const char* text, const std::string& of, double factor, double offset) {
    const auto relation = parse_relation(text);
    ASSERT_TRUE(relation) << text;
    EXPECT_EQ(relation->of, of) << text;
    EXPECT_DOUBLE_EQ(relation->factor, factor) << text;
    EXPECT_DOUBLE_EQ(relation->offset, offset) << text;
    const auto again = parse_relation(to_text(*relation));
    ASSERT_TRUE(again) << to_text(*relation);
    EXPECT_EQ(again->factor, relation->factor);
    EXPECT_EQ(again->offset, relation->offset);
  };
  same("lens.0.e1", "lens.0.e1", 1, 0);
  same(" -lens.0.e1 ", "lens.0.e1", -1, 0);
  same("0.5*lens.0.e1+1e-2", "lens.0.e1", 0.5, 0.01);
  same("lens.0.e1 / 4 - 2.5e-1", "lens.0.e1", 0.25, -0.25);
  same("1 - 2 * source.12.R_sersic * -3", "source.12.R_sersic", 6, 1);
  same("0.1 + lens.0.e1 + 0.2", "lens.0.e1", 1, 0.1 + 0.2);
  for (const char* text : {"", "1.5", "lens.0.e1 * lens.0.e2", "lens.0.e1 + lens.0.e2", "2 / lens.0.e1",
                           "lens.0.e1 +* 2", "lens.0.e1 2", "(lens.0.e1)", "lens.0.e1 / 0", "*", "lens.0.e1 *"})
    EXPECT_FALSE(parse_relation(text)) << text;
}

}  // namespace
}  // namespace einfield
