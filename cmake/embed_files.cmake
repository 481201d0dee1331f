# embed_files.cmake: files to a C source, as arrays of bytes with their types and hashes.
#
#   cmake -DOUTPUT=web_files.c -DROOT=web -DOPENAPI=openapi.json -P embed_files.cmake
#
# Every file below ROOT becomes a web_file under its path; a name or a type that is not known is an error.

set(TYPE_html "text/html; charset=utf-8")
set(TYPE_css "text/css; charset=utf-8")
set(TYPE_js "text/javascript; charset=utf-8")
set(TYPE_mjs "text/javascript; charset=utf-8")
set(TYPE_json "application/json")
set(TYPE_webmanifest "application/manifest+json")
set(TYPE_svg "image/svg+xml")
set(TYPE_png "image/png")
set(TYPE_ico "image/x-icon")
set(TYPE_woff2 "font/woff2")
set(TYPE_txt "text/plain; charset=utf-8")

# One array; RESULT gets the initializer of its web_file.
function(embed path name index result)
  if(NOT name MATCHES "^/[A-Za-z0-9._/-]+$")
    message(FATAL_ERROR "${name}: want letters, digits, '.', '_' and '-' in the name of a file to be served")
  endif()
  string(REGEX MATCH "[^.]*$" extension "${name}")
  if(NOT DEFINED TYPE_${extension})
    message(FATAL_ERROR "${path}: no type is known for .${extension}; add one in ${CMAKE_CURRENT_LIST_FILE}")
  endif()
  file(READ "${path}" hex HEX)
  file(SHA256 "${path}" hash)
  string(SUBSTRING "${hash}" 0 32 hash)
  file(SIZE "${path}" size)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes "${bytes}")
  file(APPEND "${OUTPUT}.tmp" "static const unsigned char data_${index}[] = {\n${bytes}0};\n") # the 0: no empty arrays
  set(${result} "{\"${name}\", \"${TYPE_${extension}}\", \"\\\"${hash}\\\"\", data_${index}, ${size}}" PARENT_SCOPE)
endfunction()

file(WRITE "${OUTPUT}.tmp" "/* Made by embed_files.cmake. */\n#include \"web_files.h\"\n\n")
file(GLOB_RECURSE names RELATIVE "${ROOT}" "${ROOT}/*")
list(SORT names)
set(table "")
set(count 0)
foreach(name IN LISTS names)
  embed("${ROOT}/${name}" "/${name}" ${count} entry)
  string(APPEND table "    ${entry},\n")
  math(EXPR count "${count} + 1")
endforeach()
embed("${OPENAPI}" "/openapi.json" openapi openapi)
file(APPEND "${OUTPUT}.tmp" "\nconst web_file web_files[] = {\n${table}    {0}};\nconst int web_n_files = ${count};\nconst web_file web_openapi = ${openapi};\n")
file(RENAME "${OUTPUT}.tmp" "${OUTPUT}")
