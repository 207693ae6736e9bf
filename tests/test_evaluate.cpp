// The stored lens at points and on grids: the fit's own maps again, tables passed through, bad tables and damage
// refused.
#include "host/app/evaluate.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "einfield/error.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/results/write_results.hpp"
#include "tests/small_lens.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

template <class Real>
void write_fit(const SmallLens& lens) {
  const SmallFit<Real> fit(lens.config());
  write_results(lens.out(), lens.config(), fit.loaded, fit.results(), fit.images(),
                {"cpu", "", sizeof(Real) == 4 ? "single" : "double"}, 1);
}

/// The answer to a table, as text.
std::string answer(const SmallLens& lens, const std::string& table) {
  std::ostringstream stream;
  evaluate_points(lens.out(), lens.folder().write("points.csv", table), "", stream);
  return stream.str();
}

std::vector<std::vector<std::string>> parsed(const std::string& csv) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream lines(csv);
  for (std::string line; std::getline(lines, line);) {
    rows.emplace_back();
    std::istringstream fields(line);
    for (std::string field; std::getline(fields, field, ',');) rows.back().push_back(field);
  }
  return rows;
}

template <class Real>
class EvaluateOf : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(EvaluateOf, Precisions);

template <class Real>
void compare_with_the_fit(const SmallLens& lens) {
  write_fit<Real>(lens);
  const std::vector<double> theta = pixel_centers({14, 12, 0.3, 0.1, -0.2, 1});
  const std::size_t n = theta.size() / 2;
  std::string table = "x,y\n";
  for (std::size_t i = 0; i < n; ++i) table += to_text(theta[i]) + "," + to_text(theta[n + i]) + "\n";
  const std::vector<std::vector<std::string>> rows = parsed(answer(lens, table));
  ASSERT_EQ(rows.size(), n + 1);
  EXPECT_EQ(rows[0], (std::vector<std::string>{"x", "y", "psi", "alpha_x", "alpha_y", "kappa", "psi_macro",
                                               "alpha_x_macro", "alpha_y_macro", "kappa_macro"}));
  std::size_t column = 2;
  for (const char* suffix : {"_NN", "_MACRO"}) {
    const auto map = [&](const char* quantity, int planes) {
      return read_fits(lens.out() + "/result.fits", std::string(quantity) + suffix, planes).values;
    };
    std::vector<double> alpha = map("ALPHA", 2);
    for (const std::vector<double>& values :
         {map("PSI", 1), std::vector<double>(alpha.begin(), alpha.begin() + static_cast<std::ptrdiff_t>(n)),
          std::vector<double>(alpha.begin() + static_cast<std::ptrdiff_t>(n), alpha.end()), map("KAPPA", 1)}) {
      for (std::size_t i = 0; i < n; ++i) {
        const std::optional<double> value = parse_number<double>(rows[i + 1][column]);
        ASSERT_TRUE(value);
        EXPECT_EQ(static_cast<Real>(*value), values[i]) << rows[0][column] << " " << i;
      }
      ++column;
    }
  }
}

TYPED_TEST(EvaluateOf, PixelCentresGiveTheMapsOfTheFit) {
  compare_with_the_fit<TypeParam>(SmallLens());
}
TYPED_TEST(EvaluateOf, PixelCentresGiveTheMapsOfAFitWithFourierFeatures) {
  for (const char* hidden : {"[7, 5]", "[]"}) {
    const SmallLens lens{
        {"network.encoding", "\"fourier\""}, {"network.fourier_features", "6"}, {"network.hidden", hidden}};
    compare_with_the_fit<TypeParam>(lens);
    const nlohmann::json result = nlohmann::json::parse(lens.folder().read("out/result.json"));
    EXPECT_EQ(result["network"]["encoding"], "fourier");
    EXPECT_EQ(result["network"]["fourier_features"], 6);
    EXPECT_EQ(result["network"]["hidden"], nlohmann::json::parse(hidden));
  }
}

TYPED_TEST(EvaluateOf, AGridOfTheImageGivesTheMapsOfTheFit) {
  const SmallLens lens;
  write_fit<TypeParam>(lens);
  evaluate_grid(lens.out(), 14, 12, 0.3, "");
  for (const char* name : {"PSI_NN", "ALPHA_NN", "KAPPA_NN", "PSI_MACRO", "ALPHA_MACRO", "KAPPA_MACRO"}) {
    const int planes = name[0] == 'A' ? 2 : 1;
    const FitsImage fitted = read_fits(lens.out() + "/result.fits", name, planes);
    const FitsImage evaluated = read_fits(lens.out() + "/evaluate.fits", name, planes);
    EXPECT_EQ(evaluated.values, fitted.values) << name;
    EXPECT_EQ(evaluated.unit, fitted.unit) << name;
    ASSERT_TRUE(evaluated.linear);
    EXPECT_EQ(evaluated.linear->center_x, fitted.linear->center_x);
    EXPECT_EQ(evaluated.linear->pixel_scale, fitted.linear->pixel_scale);
  }
  EXPECT_NE(lens.folder().read("out/evaluate.fits").find(sizeof(TypeParam) == 4 ? "-32 /" : "-64 /"),
            std::string::npos);
}

TEST(Evaluate, GridsOfAnyShape) {
  const SmallLens lens;
  write_fit<double>(lens);
  evaluate_grid(lens.out(), 5, 3, 0.07, lens.folder() / "fine.fits");
  const FitsImage psi = read_fits(lens.folder() / "fine.fits", "PSI_MACRO");
  EXPECT_EQ(psi.nx, 5);
  EXPECT_EQ(psi.ny, 3);
  EXPECT_NEAR(psi.linear->center_x, 0.1, 1e-14);
  EXPECT_NEAR(psi.linear->center_y, -0.2, 1e-14);
  EXPECT_NEAR(psi.linear->pixel_scale, 0.07, 1e-15);
  // The middle pixel lies in the middle of the image.
  EXPECT_EQ(to_text(psi.values[7]), parsed(answer(lens, "x,y\n0.1,-0.2\n"))[1][6]);
  EXPECT_FALSE(fs::exists(lens.out() + "/evaluate.fits"));
  for (const auto& [nx, ny, scale] :
       {std::tuple{0, 3, 0.1}, {3, -1, 0.1}, {kMaxImageSide + 1, 1, 0.1}, {3, 3, 0.0}, {3, 3, std::nan("")}})
    EXPECT_THROW(evaluate_grid(lens.out(), nx, ny, scale, ""), InvalidInput);
}

TEST(Evaluate, TablesArePassedThrough) {
  const SmallLens lens;
  write_fit<float>(lens);
  const std::string plain = answer(lens, "x,y\n0.5,-1\n");
  const std::string values = plain.substr(plain.find("0.5,-1,") + 7);
  const std::string names = "psi,alpha_x,alpha_y,kappa,psi_macro,alpha_x_macro,alpha_y_macro,kappa_macro\n";
  EXPECT_EQ(plain, "x,y," + names + "0.5,-1," + values);
  EXPECT_EQ(answer(lens, "id,y,x,note\nA, -1 ,+0.5e0,\"b, \"\"c\"\"\"\n"),
            "id,y,x,note," + names + "A, -1 ,+0.5e0,\"b, \"\"c\"\"\"," + values);
  EXPECT_EQ(answer(lens, "\xEF\xBB\xBFx,y\r\n0.5,-1\r\n\r\n"), plain);
  EXPECT_EQ(answer(lens, "\"x\",\"y\"\n\"0.5\",\"-1\""), "\"x\",\"y\"," + names + "\"0.5\",\"-1\"," + values);
  EXPECT_EQ(answer(lens, "x,y\n"), "x,y," + names);
  std::ostringstream nothing;
  evaluate_points(lens.out(), lens.folder().write("points.csv", "x,y\n0.5,-1\n"), lens.folder() / "answer.csv",
                  nothing);
  EXPECT_EQ(lens.folder().read("answer.csv"), plain);
  EXPECT_EQ(nothing.str(), "");
}

TEST(Evaluate, BadTablesNameTheLine) {
  const SmallLens lens;
  write_fit<float>(lens);
  const auto refusal = [&lens](const std::string& table) {
    try {
      answer(lens, table);
    } catch (const InvalidInput& error) {
      const std::string message = error.what();
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      EXPECT_EQ(message.rfind(lens.folder() / "points.csv", 0), 0u) << message;
      return message.substr((lens.folder() / "points.csv").size());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refusal(""), ": empty, expected a header with the columns x and y");
  EXPECT_EQ(refusal("\n\n"), ": empty, expected a header with the columns x and y");
  EXPECT_EQ(refusal("a,y\n1,2\n"), ":1: no column x in the header, expected x and y in arcsec");
  EXPECT_EQ(refusal("0.5,1.0\n1,2\n"), ":1: no column x in the header, expected x and y in arcsec");
  EXPECT_EQ(refusal("x\n1\n"), ":1: no column y in the header, expected x and y in arcsec");
  EXPECT_EQ(refusal("x,y,x\n1,2,3\n"), ":1: two columns x");
  EXPECT_EQ(refusal("x,y,kappa\n1,2,3\n"), ":1: has a column kappa already, expected x, y and columns of other names");
  EXPECT_EQ(refusal("x,y\n1,2\n3\n"), ":3: 1 field, expected 2");
  EXPECT_EQ(refusal("x,y\n1,2\n\n3,4\n"), ":3: 1 field, expected 2");
  EXPECT_EQ(refusal("x,y\n1,2,\n"), ":2: 3 fields, expected 2");
  EXPECT_EQ(refusal("x,y\n1,two\n"), ":2: y: 'two', expected a number in arcsec");
  EXPECT_EQ(refusal("x,y\n,2\n"), ":2: x: '', expected a number in arcsec");
  EXPECT_EQ(refusal("x,y\n1;2,3\n"), ":2: x: '1;2', expected a number in arcsec");
  for (const char* number : {"nan", "inf", "-inf", "1e999", "0x10", "1 2", "+-1", "--1", "1,\"2"})
    EXPECT_EQ(refusal(std::string("x,y\n0,0\n2,") + number + "\n").rfind(":3: ", 0), 0u) << number;
  EXPECT_EQ(refusal("x,y\n1,\"2\n"), ":2: a quote is not closed");
  EXPECT_EQ(refusal("x,y\n1," + std::string(100, '\x01') + "\n"),
            ":2: y: '" + std::string(40, '?') + "...', expected a number in arcsec");
  std::ostringstream stream;
  EXPECT_THROW(evaluate_points(lens.out(), lens.folder() / "absent.csv", "", stream), InvalidInput);
  EXPECT_THROW(evaluate_points(lens.out(), lens.out(), "", stream), InvalidInput);
  EXPECT_EQ(stream.str(), "");
}

TEST(Evaluate, TablesWithoutAnEndAreRefused) {
  const SmallLens lens;
  write_fit<float>(lens);
  const auto refusal = [&lens](const std::string& points) {
    std::ostringstream answers;
    try {
      evaluate_points(lens.out(), points, "", answers);
    } catch (const InvalidInput& error) {
      return std::string(error.what()).substr(points.size());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refusal("/dev/zero"), ": a device, expected a CSV file");
  EXPECT_EQ(refusal(lens.folder().path().string()), ": a directory, expected a CSV file");
  const std::string points = lens.folder().write("points.csv", "x,y\n0,0\n");
  EXPECT_EQ(refusal(points), "accepted");
  fs::resize_file(points, (std::uintmax_t(1) << 30) + 1);
  EXPECT_EQ(refusal(points), ": too large, expected a CSV file of at most 1073741824 bytes");
  fs::remove(points);
  ASSERT_EQ(mkfifo(points.c_str(), 0600), 0);
  std::thread writer([&points] { std::ofstream(points) << "x,y\n0,0\n"; });
  EXPECT_EQ(refusal(points), "accepted");
  writer.join();
}

TEST(Evaluate, AFullOutputIsAnError) {
  const SmallLens lens;
  write_fit<float>(lens);
  std::ostringstream stream;
  stream.setstate(std::ios::badbit);
  const std::string points = lens.folder().write("points.csv", "x,y\n0,0\n");
  EXPECT_THROW(evaluate_points(lens.out(), points, "", stream), IoError);
  EXPECT_THROW(evaluate_points(lens.out(), points, lens.folder() / "absent/answer.csv", stream), IoError);
}

TEST(Evaluate, DamagedResultsAreRefused) {
  const SmallLens lens;
  write_fit<float>(lens);
  const std::string intact = lens.folder().read("out/result.json");
  const auto refusal = [&lens] {
    try {
      answer(lens, "x,y\n0,0\n");
    } catch (const InvalidInput& error) {
      const std::string message = error.what();
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      return message;
    }
    return std::string("accepted");
  };
  const auto with = [&](const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json result = nlohmann::json::parse(intact);
    change(result);
    lens.folder().write("out/result.json", result.dump());
    return refusal();
  };
  const std::string file = lens.out() + "/result.json: ";
  EXPECT_EQ(with([](auto&) {}), "accepted");
  for (std::size_t size = 0; size + 2 < intact.size(); size += 101) {
    lens.folder().write("out/result.json", intact.substr(0, size));
    EXPECT_EQ(refusal().rfind(file + "not JSON, found an error at byte ", 0), 0u);
  }
  lens.folder().write("out/result.json", "[1]");
  EXPECT_EQ(refusal(), file + "found a list of 1, expected an object");
  for (const char* key : {"precision", "grid", "profiles", "parameters", "network"})
    EXPECT_EQ(with([key](auto& r) { r.erase(key); }).rfind(file, 0), 0u) << key;
  for (const char* key : {"precision", "grid", "profiles", "parameters", "network"})
    EXPECT_EQ(with([key](auto& r) { r[key] = 7; }).rfind(file, 0), 0u) << key;
  EXPECT_EQ(with([](auto& r) { r["precision"] = "half"; }), file + "precision: found half, expected single or double");
  EXPECT_NE(with([](auto& r) { r["profiles"]["lens.1"] = "TORUS"; }).find("profiles.lens.1: unknown profile TORUS"),
            std::string::npos);
  EXPECT_EQ(with([](auto& r) { r["parameters"].erase("lens.1.gamma2"); }).rfind(file, 0), 0u);
  EXPECT_EQ(with([](auto& r) {
              r["parameters"]["lens.0.theta_E"] = -1;
            }).rfind(file + "parameters.lens.0.theta_E: out of range", 0),
            0u);
  EXPECT_NE(with([](auto& r) { r["network"]["hidden"] = {7, 6}; }).find("another shape"), std::string::npos);
  EXPECT_NE(with([](auto& r) { r["network"]["fourier_features"] = 3; }).find("another shape"), std::string::npos);
  EXPECT_EQ(with([](auto& r) { r["network"]["fourier_features"] = "3"; }).rfind(file, 0), 0u);
  EXPECT_EQ(with([](auto& r) { r["profiles"]["lens.0"] = nullptr; }), file + "profiles.lens.0: missing");
  // What no int holds.
  EXPECT_EQ(with([](auto& r) {
              r["network"]["hidden"] = {1e300, 5};
            }),
            file + "network.hidden[0]: out of range, found 1e+300, expected a number 1 to 4096");
  EXPECT_NE(with([](auto& r) { r["network"]["members"] = 1e18; }).find("network.members: out of range"),
            std::string::npos);
  EXPECT_NE(with([](auto& r) { r["network"]["members"] = 2; }).find("network.potential_offsets: missing"),
            std::string::npos);

  lens.folder().write("out/result.json", intact);
  fs::resize_file(lens.out() + "/network.safetensors", 200);
  EXPECT_EQ(refusal().rfind(lens.out() + "/network.safetensors: ", 0), 0u);
  fs::remove(lens.out() + "/network.safetensors");
  EXPECT_EQ(refusal(), lens.out() + "/network.safetensors: no such file");
  fs::remove(lens.out() + "/result.json");
  ASSERT_EQ(mkfifo((lens.out() + "/result.json").c_str(), 0600), 0);
  EXPECT_EQ(refusal(), file + "not a regular file, expected JSON");
  fs::remove(lens.out() + "/result.json");
  EXPECT_EQ(refusal(), lens.out() + ": no result.json, expected the directory of a finished fit");
  EXPECT_THROW(evaluate_grid(lens.folder() / "absent", 3, 3, 0.1, ""), InvalidInput);
}

TEST(Evaluate, WithoutANetworkItsFieldsAreZero) {
  const SmallLens lens;
  std::string text = lens.folder().read("lens.toml");
  const std::size_t begin = text.find("[network]");
  text.erase(begin, text.find("[optimizer]") - begin);
  lens.folder().write("lens.toml", text);
  write_fit<float>(lens);
  const std::vector<std::string> row = parsed(answer(lens, "x,y\n0.5,-1\n"))[1];
  EXPECT_EQ(std::vector<std::string>(row.begin() + 2, row.begin() + 6), std::vector<std::string>(4, "0"));
  EXPECT_NE(row[6], "0");
}

}  // namespace
}  // namespace einfield
