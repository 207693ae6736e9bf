// Any bytes as a FITS file: an image whose numbers are all there, or InvalidInput.
#include <algorithm>
#include <cstring>
#include <iterator>

#include "einfield/error.hpp"
#include "host/files/fits_io.hpp"
#include "tests/fuzz/workspace.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace einfield;
  const std::string path = workspace().write("x.fits", as_text(data, size));
  const auto read = [&path](const char* hdu, int planes) {
    try {
      const FitsImage image = read_fits(path, hdu, planes);
      const std::size_t expected =
          static_cast<std::size_t>(image.nx) * static_cast<std::size_t>(image.ny) * static_cast<std::size_t>(planes);
      promise(image.nx >= 1 && image.ny >= 1 && image.values.size() == expected, "an image has its pixels");
    } catch (const InvalidInput&) {
    }
  };
  read("", 1);
  read("IMAGE", 1);
  read("1", 2);
  return 0;
}

#ifdef EINFIELD_FUZZ
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

/// Half of the time one card of a header gets another value: bytes changed at random rarely make one.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  static const char* const kNames[] = {"SIMPLE", "XTENSION", "BITPIX", "NAXIS",  "NAXIS1",   "NAXIS2",   "NAXIS3",
                                       "PCOUNT", "GCOUNT",   "GROUPS", "BLANK",  "BSCALE",   "BZERO",    "CTYPE1",
                                       "CTYPE2", "CDELT1",   "CD1_1",  "CUNIT1", "EXTNAME",  "EXTVER",   "ZIMAGE",
                                       "ZNAXIS", "ZNAXIS1",  "ZTILE1", "ZTILE2", "ZBITPIX",  "ZCMPTYPE", "ZVAL1",
                                       "ZVAL2",  "TFIELDS",  "TFORM1", "TTYPE1", "ZQUANTIZ", "THEAP",    "END"};
  static const char* const kValues[] = {"0",
                                        "1",
                                        "2",
                                        "3",
                                        "-1",
                                        "8",
                                        "16",
                                        "32",
                                        "64",
                                        "-32",
                                        "-64",
                                        "999",
                                        "16384",
                                        "16385",
                                        "2147483647",
                                        "4294967296",
                                        "1e308",
                                        "nan",
                                        "T",
                                        "F",
                                        "'RA---TAN'",
                                        "'DEC--TAN'",
                                        "'IMAGE'",
                                        "'BINTABLE'",
                                        "'RICE_1'",
                                        "'GZIP_1'",
                                        "'GZIP_2'",
                                        "'PLIO_1'",
                                        "'HCOMPRESS_1'",
                                        "'1PB(999)'",
                                        "'1QJ(9)'",
                                        "9223372036854775807",
                                        "'",
                                        ""};
  if (seed % 2 == 0 || size < 2880) return LLVMFuzzerMutate(data, size, max_size);
  const std::size_t card = (seed / 2) % (size / 80) * 80;
  std::string text(reinterpret_cast<const char*>(data) + card, 80);
  if (seed / 7 % 3 == 0) {
    text.replace(0, 8, kNames[seed / 11 % std::size(kNames)]);
    text.resize(std::strlen(kNames[seed / 11 % std::size(kNames)]));
    text.resize(8, ' ');
    text += "= ";
  } else {
    text.resize(10);
  }
  text += kValues[seed / 13 % std::size(kValues)];
  text.resize(80, ' ');
  std::copy(text.begin(), text.end(), data + card);
  return size;
}
#endif
