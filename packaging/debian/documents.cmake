# CPack runs this before it writes the packages: the file `copyright` into each of them.
foreach(pair runtime:einfield development:libeinfield-dev)
  string(REPLACE ":" ";" pair ${pair})
  list(GET pair 0 component)
  list(GET pair 1 package)
  file(COPY ${CMAKE_CURRENT_LIST_DIR}/copyright
       DESTINATION ${CPACK_TEMPORARY_DIRECTORY}/${component}${CPACK_PACKAGING_INSTALL_PREFIX}/share/doc/${package}
       FILE_PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
endforeach()
