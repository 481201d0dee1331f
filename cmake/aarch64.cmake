# Cross build for AArch64 with Debian's compiler; tests run under qemu-aarch64.  The libraries that turboquant links
# come from a folder that scripts/aarch64-sysroot fills (TQ_AARCH64_SYSROOT, default build/aarch64-sysroot).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

# Downloads are tried where the tests' server runs; libcurl's many libraries stay out of the folder below.
set(TQ_HUB OFF CACHE BOOL "")
set(TQ_SERVER OFF CACHE BOOL "") # nor libmicrohttpd with GnuTLS
set(TQ_AARCH64_SYSROOT "${CMAKE_CURRENT_LIST_DIR}/../build/aarch64-sysroot" CACHE PATH "arm64 development packages, unpacked")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES TQ_AARCH64_SYSROOT)
get_filename_component(TQ_SYSROOT "${TQ_AARCH64_SYSROOT}" ABSOLUTE)
set(TQ_SYSROOT_LIB ${TQ_SYSROOT}/usr/lib/aarch64-linux-gnu)

# Not CMAKE_SYSROOT: the C library is the cross compiler's own.
set(ENV{PKG_CONFIG_LIBDIR} ${TQ_SYSROOT_LIB}/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${TQ_SYSROOT})
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu ${TQ_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
# pkg-config leaves out /usr/include and /usr/lib/aarch64-linux-gnu before it puts the sysroot in front.
set(CMAKE_C_FLAGS_INIT "-isystem ${TQ_SYSROOT}/usr/include")
foreach(kind EXE SHARED)
  set(CMAKE_${kind}_LINKER_FLAGS_INIT "-L${TQ_SYSROOT_LIB} -Wl,-rpath-link,${TQ_SYSROOT_LIB}")
endforeach()

set(CMAKE_CROSSCOMPILING_EMULATOR
  qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=/lib:${TQ_SYSROOT_LIB})
