# What `cmake --install` puts where.  Both the pkg-config file and the CMake package find the rest relative to
# themselves, so that an installation may be moved, or staged with DESTDIR.
include(CMakePackageConfigHelpers)

install(DIRECTORY include/turboquant DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
# Two export sets: who uses the shared library does not need the development files of what the static one links.
foreach(suffix shared static)
  install(TARGETS turboquant_${suffix} EXPORT turboquant-${suffix}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT turboquant-${suffix} NAMESPACE turboquant:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/turboquant)
endforeach()

configure_package_config_file(cmake/turboquantConfig.cmake.in ${PROJECT_BINARY_DIR}/turboquantConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/turboquant)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/turboquantConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/turboquantConfig.cmake ${PROJECT_BINARY_DIR}/turboquantConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/turboquant)

file(RELATIVE_PATH TQ_PC_TO_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/turboquant.pc.in turboquant.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/turboquant.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(FILES models/evaluation.txt DESTINATION ${CMAKE_INSTALL_DATADIR}/turboquant/models)
install(DIRECTORY models/bookworm DESTINATION ${CMAKE_INSTALL_DATADIR}/turboquant/models)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
install(DIRECTORY docs/examples DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.c")
