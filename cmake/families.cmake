# A family of kernels is csrc/<name>/<name>_cpu.cpp, compiled once for each SIMD level, and csrc/<name>/*_cuda.cu, if any.

set(PYGAN_CPU_FLAGS -fno-math-errno -fno-trapping-math -ffp-contract=off)
set(PYGAN_WARNINGS -Wall -Wextra -Wconversion -Wno-sign-conversion $<$<BOOL:${PYGAN_WERROR}>:-Werror>)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(PYGAN_SIMD_LEVELS baseline avx2 avx512)
  set(PYGAN_FLAGS_avx2 -mavx2 -mfma -mf16c)
  set(PYGAN_FLAGS_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512)
else()
  set(PYGAN_SIMD_LEVELS baseline)
endif()
set(PYGAN_FLAGS_baseline "")

function(pygan_compile_options target)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/csrc)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O3 ${PYGAN_CPU_FLAGS} ${PYGAN_WARNINGS}>)
  list(LENGTH PYGAN_SIMD_LEVELS levels)
  target_compile_definitions(${target} PRIVATE
    PYGAN_VERSION="${PROJECT_VERSION}"
    $<$<EQUAL:${levels},3>:PYGAN_X86_LEVELS>
    $<$<BOOL:${PYGAN_WITH_CUDA}>:PYGAN_WITH_CUDA>)
  if(PYGAN_WITH_CUDA)
    string(REPLACE ";" " " archs "${CMAKE_CUDA_ARCHITECTURES}")
    target_compile_definitions(${target} PRIVATE
      PYGAN_CUDA_VERSION="${CMAKE_CUDA_COMPILER_VERSION}" PYGAN_CUDA_ARCHS="${archs}")
  endif()
  target_link_libraries(${target} PRIVATE OpenMP::OpenMP_CXX)
  if(PYGAN_SANITIZE)
    target_compile_options(${target} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined>)
    target_link_options(${target} PRIVATE -fsanitize=address,undefined)
  endif()
endfunction()

# pygan_add_family(name [FLAGS extra CPU flags])
function(pygan_add_family name)
  cmake_parse_arguments(family "" "" "FLAGS" ${ARGN})
  foreach(level IN LISTS PYGAN_SIMD_LEVELS)
    set(object ${name}_${level})
    add_library(${object} OBJECT csrc/${name}/${name}_cpu.cpp)
    pygan_compile_options(${object})
    target_compile_options(${object} PRIVATE ${PYGAN_FLAGS_${level}} ${family_FLAGS})
    target_compile_definitions(${object} PRIVATE PYGAN_SIMD_LEVEL=${level})
    target_sources(_core PRIVATE $<TARGET_OBJECTS:${object}>)
  endforeach()
  file(GLOB sources CONFIGURE_DEPENDS csrc/${name}/*_cuda.cu)
  if(PYGAN_WITH_CUDA AND sources)
    set(object ${name}_cuda)
    add_library(${object} OBJECT ${sources})
    pygan_compile_options(${object})
    target_compile_options(${object} PRIVATE
      $<$<COMPILE_LANGUAGE:CUDA>:-O3 -Xcompiler=-Wall,-Wextra $<$<BOOL:${PYGAN_WERROR}>:-Werror=all-warnings>>)
    target_sources(_core PRIVATE $<TARGET_OBJECTS:${object}>)
  endif()
endfunction()
