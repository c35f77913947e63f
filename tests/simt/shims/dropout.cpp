#include "dropout/dropout.h"

#include "shim.h"

using namespace pygan;

extern "C" int dropout(int dtype, const DropoutArguments* arguments, int device, std::uintptr_t stream) {
  return guarded([&] { cuda::dropout(DType(dtype), *arguments, device, stream); });
}
