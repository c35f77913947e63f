// Lets ctypes call the launch functions, which are C++ and throw.
#pragma once
#include <exception>
#include <string>

inline std::string shim_message;

extern "C" __attribute__((used)) inline const char* shim_error() {
  return shim_message.c_str();
}

// 0, or 1 when `launch` throws; shim_error() then holds the exception's text.
template <class Launch>
int guarded(Launch launch) {
  try {
    launch();
    return 0;
  } catch (const std::exception& error) {
    shim_message = error.what();
    return 1;
  }
}
