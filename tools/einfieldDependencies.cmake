# Finds CFITSIO and Highway for einfield's own build and for projects that link the static library: the imported targets
# einfield::cfitsio and einfield::hwy. pkg-config gives hints where it is installed and is not needed otherwise.
# einfield_missing lists in words what was not found. To use a library elsewhere, set EINFIELD_<NAME>_LIBRARY and
# EINFIELD_<NAME>_INCLUDE_DIR (NAME: CFITSIO or HWY).
find_package(PkgConfig QUIET)
set(einfield_missing)
function(einfield_find_library name module header words)
  string(TOUPPER ${name} upper)
  if(PKG_CONFIG_FOUND)
    pkg_check_modules(einfield_pc_${name} QUIET ${module})
  endif()
  find_path(EINFIELD_${upper}_INCLUDE_DIR ${header} HINTS ${einfield_pc_${name}_INCLUDE_DIRS} PATH_SUFFIXES ${name})
  find_library(EINFIELD_${upper}_LIBRARY ${name} HINTS ${einfield_pc_${name}_LIBRARY_DIRS})
  mark_as_advanced(EINFIELD_${upper}_INCLUDE_DIR EINFIELD_${upper}_LIBRARY)
  if(NOT EINFIELD_${upper}_INCLUDE_DIR OR NOT EINFIELD_${upper}_LIBRARY)
    set(einfield_missing ${einfield_missing} "${words}" PARENT_SCOPE)
  elseif(NOT TARGET einfield::${name})
    add_library(einfield::${name} INTERFACE IMPORTED)
    set_target_properties(einfield::${name} PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${EINFIELD_${upper}_INCLUDE_DIR}"
      INTERFACE_LINK_LIBRARIES "${EINFIELD_${upper}_LIBRARY}")
  endif()
endfunction()
einfield_find_library(cfitsio cfitsio fitsio.h "CFITSIO (Debian package libcfitsio-dev)")
einfield_find_library(hwy libhwy hwy/highway.h "Highway (Debian package libhwy-dev)")
