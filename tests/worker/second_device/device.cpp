// A device of torch that lives in the memory of the CPU: it finds what a machine without a GPU would not notice.
//
// Tensors of this device are as foreign to those of the CPU as a GPU's: an operation that mixes them is refused, except
// for numbers (tensors without an axis), which GPUs take as well. Every operation runs on the CPU. Memory can be limited.
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <mutex>
#include <set>
#include <string>

namespace {

thread_local bool falling_back = false;
std::mutex names_in_use;
std::set<std::string> names;
std::atomic<size_t> in_use{0}, limit{std::numeric_limits<size_t>::max()}, most{0}, operations{0}, fetched{0};

struct Block {
  void* data;
  size_t bytes;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  in_use -= block->bytes;
  c10::free_cpu(block->data);
  delete block;
}

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    TORCH_CHECK_WITH(OutOfMemoryError, in_use + bytes <= limit, "second device out of memory: ", bytes, " bytes");
    in_use += bytes;
    most = std::max(most.load(), in_use.load());
    auto* block = new Block{c10::alloc_cpu(bytes), bytes};
    return {block->data, block, &release, c10::Device(c10::DeviceType::PrivateUse1, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
Allocator allocator;
REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &allocator);

// Nothing is asynchronous here: an event has happened as soon as it is recorded.
struct Guard : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::PrivateUse1> {
  c10::Device here() const { return c10::Device(c10::DeviceType::PrivateUse1, 0); }
  c10::Device exchangeDevice(c10::Device) const override { return here(); }
  c10::Device getDevice() const override { return here(); }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, here()); }
  c10::Stream getNewStream(c10::Device, int) const override { return c10::Stream(c10::Stream::DEFAULT, here()); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, here()); }
  c10::Stream getDefaultStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, here()); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

at::Tensor empty(c10::SymIntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                 std::optional<c10::Device>, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &allocator,
                                   c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype),
                                   format);
}

at::Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<c10::ScalarType> dtype,
                         std::optional<c10::Layout>, std::optional<c10::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

at::Tensor seen_from_cpu(const at::Tensor& x) {
  return at::from_blob(x.data_ptr(), x.sizes(), x.strides(), x.options().device(c10::kCPU));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  if (to.is_cpu() && !falling_back) ++fetched;
  at::Tensor target = seen_from_cpu(to);
  target.copy_(seen_from_cpu(from));
  return to;
}

const at::Tensor& resize(const at::Tensor& x, c10::SymIntArrayRef size, std::optional<c10::MemoryFormat>) {
  at::native::resize_impl_cpu_(x.unsafeGetTensorImpl(), C10_AS_INTARRAYREF_SLOW(size), std::nullopt);
  return x;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Tensor as_strided(const at::Tensor& x, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                      std::optional<c10::SymInt> offset) {
  return at::native::as_strided_tensorimpl(x, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
                                           offset ? std::optional<int64_t>(offset->guard_int(__FILE__, __LINE__))
                                                  : std::nullopt);
}

at::Tensor view(const at::Tensor& x, c10::SymIntArrayRef size) {
  return at::native::view(x, C10_AS_INTARRAYREF_SLOW(size));
}

at::Tensor reshape_alias(const at::Tensor& x, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(x, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

void require_here(const at::Tensor& x, const c10::OperatorHandle& operation) {
  TORCH_CHECK(!x.defined() || !x.is_cpu() || x.dim() == 0, operation.schema().name(),
              ": a tensor of the CPU among those of the second device, of shape ", x.sizes());
}

void remember(const c10::OperatorHandle& operation) {
  std::lock_guard<std::mutex> alone(names_in_use);
  names.insert(toString(operation.operator_name()));
}

void fallback(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  ++operations;
  remember(operation);
  if (operation.schema().name() == "aten::_local_scalar_dense") ++fetched;
  for (const auto& value : torch::jit::last(*stack, operation.schema().arguments().size())) {
    if (value.isTensor()) require_here(value.toTensor(), operation);
    if (value.isTensorList()) for (const at::Tensor& x : value.toTensorVector()) require_here(x, operation);
    if (value.isOptionalTensorList())
      for (const auto& x : value.toOptionalTensorVector()) if (x) require_here(*x, operation);
  }
  falling_back = true;
  struct Back {
    ~Back() { falling_back = false; }
  } back;
  at::native::cpu_fallback(operation, stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("_copy_from", &copy_from);
  library.impl("_copy_from_and_resize", &copy_from_and_resize);
  library.impl("resize_", &resize);
  library.impl("as_strided", &as_strided);
  library.impl("view", &view);
  library.impl("_reshape_alias", &reshape_alias);
}

extern "C" {
void second_device_register() { at::RegisterPrivateUse1HooksInterface(new Hooks); }
void second_device_limit(size_t bytes) { limit = bytes; }
size_t second_device_most() {
  return most.exchange(in_use);
}
size_t second_device_in_use() { return in_use; }
size_t second_device_operations() { return operations; }
const char* second_device_names() {
  static std::string all;
  all.clear();
  for (const auto& name : names) all += name + "\n";
  return all.c_str();
}
size_t second_device_fetched() { return fetched; }
}
