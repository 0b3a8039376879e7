// One check for what users pass in: the error is the sentence alone, without source locations.
#pragma once
#include <sstream>
#include <stdexcept>

namespace eagle::ops {

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

}  // namespace eagle::ops

// Raises RuntimeError with the parts that follow, joined, unless the condition holds; parts are made only then.
#define EAGLE_CHECK(condition, ...)                    \
  do {                                                 \
    if (!(condition)) ::eagle::ops::fail(__VA_ARGS__); \
  } while (false)
