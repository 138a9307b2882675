# Debian packages, by `cpack -G DEB` in the build folder. Three, as Debian's own libraries come: rvengine (programs; they need no
# librvengine), librvengine1 (for services that were built with it: it may stand beside librvengine2), librvengine-dev.
set(RV_MAINTAINER "rvengine maintainers <maintainers@rvengine.example>" CACHE STRING "Who answers for the packages that cpack makes")
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME rvengine)
set(CPACK_PACKAGE_VENDOR rvengine)
set(CPACK_PACKAGE_CONTACT "${RV_MAINTAINER}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_VERSION ${PROJECT_VERSION})
if(RV_CUDA)                   # no toolkit serves all GPUs (README, "V100"): the version says which one this is
  string(APPEND CPACK_DEBIAN_PACKAGE_VERSION "+cuda${CUDAToolkit_VERSION_MAJOR}.${CUDAToolkit_VERSION_MINOR}")
endif()
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)

set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME rvengine)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION science)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_TOOLS_PACKAGE_RECOMMENDS "poppler-utils")
set(CPACK_DEBIAN_TOOLS_PACKAGE_SUGGESTS "libtesseract5, tesseract-ocr-eng, librvengine-dev")
set(CPACK_COMPONENT_TOOLS_DESCRIPTION "read documents with Llama-3.2-Vision models
rvengine answers questions about images, and extracts typed and checked fields
from receipts, invoices and statements, straight from the safetensors files of
a Llama-3.2-11B-Vision folder. rvbench measures it. No model is included.")

if(RV_STATIC)
  set(CPACK_COMPONENTS_ALL tools)
  set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS OFF)
else()
  set(CPACK_COMPONENTS_ALL tools library dev)
endif()
set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME librvengine${RV_ABI})
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
set(CPACK_DEBIAN_LIBRARY_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_SOURCE_DIR}/triggers)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SUGGESTS "libtesseract5, tesseract-ocr-eng")
set(CPACK_COMPONENT_LIBRARY_DESCRIPTION "document reading engine for Llama-3.2-Vision models - library
For programs that were built with librvengine-dev: models, sessions in which
several requests are computed together, constrained answers, fields.")

set(CPACK_DEBIAN_DEV_PACKAGE_NAME librvengine-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(rv_dev_needs "librvengine${RV_ABI} (= ${CPACK_DEBIAN_PACKAGE_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE})" libjansson-dev libutf8proc-dev libpcre2-dev libjpeg-dev libpng-dev libgif-dev)
if(RV_ONEDNN)
  list(APPEND rv_dev_needs libdnnl-dev)
endif()
list(JOIN rv_dev_needs ", " CPACK_DEBIAN_DEV_PACKAGE_DEPENDS)
set(CPACK_COMPONENT_DEV_DESCRIPTION "document reading engine for Llama-3.2-Vision models - development
Headers, the static library, a pkg-config file and a CMake package
(find_package(rvengine)).")

# Every package has its copyright and its changelogs, as Debian's policy asks.
set(made ${CMAKE_CURRENT_BINARY_DIR})
string(TIMESTAMP rv_date "%a, %d %b %Y %H:%M:%S +0000" UTC)       # SOURCE_DATE_EPOCH's, where that is set
file(WRITE ${made}/changelog.Debian "rvengine (${CPACK_DEBIAN_PACKAGE_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE}) unstable; urgency=medium

  * Made by cpack; what has changed is in changelog.gz.

 -- ${RV_MAINTAINER}  ${rv_date}
")
add_custom_command(OUTPUT ${made}/changelog.gz ${made}/changelog.Debian.gz
  COMMAND ${RV_GZIP} -9nc ${CMAKE_SOURCE_DIR}/CHANGELOG.md > ${made}/changelog.gz
  COMMAND ${RV_GZIP} -9nkf ${made}/changelog.Debian
  DEPENDS ${CMAKE_SOURCE_DIR}/CHANGELOG.md ${made}/changelog.Debian VERBATIM)
add_custom_target(changelog ALL DEPENDS ${made}/changelog.gz)
foreach(component ${CPACK_COMPONENTS_ALL})
  string(TOUPPER ${component} upper)
  install(FILES ${CMAKE_CURRENT_SOURCE_DIR}/copyright ${made}/changelog.gz ${made}/changelog.Debian.gz
          DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${CPACK_DEBIAN_${upper}_PACKAGE_NAME} COMPONENT ${component})
endforeach()
include(CPack)
