// What libgcc tells function clones of the processor, in its place: nothing but LEVEL, for example "x86-64-v3".
extern "C" {
unsigned __cpu_model[4];      // the maker, and features that no level has by name
unsigned __cpu_features2[8];  // a set of bits, of which only the compiler knows the meaning
int __cpu_indicator_init();
}

// Before the loader picks the first clone.
int __cpu_indicator_init() {
  for (unsigned& word : __cpu_features2) {
    for (int bit = 0; bit < 32; ++bit) {
      word = 1u << bit;
      if (__builtin_cpu_supports(LEVEL)) return 0;
    }
    word = 0;
  }
  return 1;
}
