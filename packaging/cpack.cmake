# Debian packages: `cpack -G DEB` in a build folder; `cmake --workflow --preset package` builds for them, too.
# einfield has the component `runtime`, libeinfield-dev the component `development`.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_VENDOR "The einfield developers")
set(CPACK_PACKAGE_CONTACT "The einfield developers")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "fits strong gravitational lenses with a neural correction of the potential")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL runtime development)
set(CPACK_STRIP_FILES TRUE)
set(CPACK_DEB_COMPONENT_INSTALL TRUE)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION TRUE)
# Each package needs its file `copyright`.
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/debian/documents.cmake)

set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME einfield)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION science)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS TRUE)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_RECOMMENDS "gnuplot-nox | gnuplot, fonts-dejavu-core")
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION
  "A smooth lens model (SIE, EPL, NFW, shear and others) is fitted to an image,
together with a small neural network for the part of the lens potential that
the smooth model misses. This package has the command einfield and examples.")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libeinfield-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "libcfitsio-dev, libhwy-dev")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SUGGESTS einfield)
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION
  "The static library of einfield, its headers, and files for CMake's
find_package(einfield) and for pkg-config.")
include(CPack)
