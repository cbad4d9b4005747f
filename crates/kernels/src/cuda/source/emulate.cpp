// A kernel's launch on the emulator: read from the standard input, and its buffers written to the standard output.
//
// The input is the kernel's name and a newline, then 32-bit numbers: the grid, threads, bytes of shared memory and how many arguments
// there are; then each argument, a byte that says what it is and its value, of a buffer its length and bytes.
#include "kernels.cu"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>

namespace {

struct Argument {
    char kind;                          // b a buffer, 0 none, i and l integers, f float32
    std::vector<unsigned char> buffer;
    int64_t integer = 0;
    float real = 0;
};

[[noreturn]] void fail(const std::string& why) {
    std::fprintf(stderr, "%s\n", why.c_str());
    std::exit(1);
}

template <class T> T read() {
    T value;
    if (std::fread(&value, sizeof value, 1, stdin) != 1) fail("the input ends too early");
    return value;
}

void expect(const Argument& argument, const char* kinds) {
    if (!std::strchr(kinds, argument.kind)) fail(std::string("an argument is ") + argument.kind + ", not one of " + kinds);
}

template <class T> struct Of;
template <class T> struct Of<T*> {
    static T* from(Argument& argument) {
        expect(argument, "b0");
        return argument.kind == '0' ? nullptr : reinterpret_cast<T*>(argument.buffer.data());
    }
};
template <> struct Of<int> {
    static int from(Argument& argument) { return expect(argument, "i"), int(argument.integer); }
};
template <> struct Of<long> {
    static long from(Argument& argument) { return expect(argument, "l"), long(argument.integer); }
};
template <> struct Of<float> {
    static float from(Argument& argument) { return expect(argument, "f"), argument.real; }
};

using Run = std::function<void(std::vector<Argument>&)>;

template <class... A, size_t... I> Run runner(void (*kernel)(A...), std::index_sequence<I...>) {
    return [kernel](std::vector<Argument>& arguments) {
        if (arguments.size() != sizeof...(A)) fail("a kernel of " + std::to_string(sizeof...(A)) + " arguments got " + std::to_string(arguments.size()));
        kernel(Of<A>::from(arguments[I])...);
    };
}
template <class... A> Run runner(void (*kernel)(A...)) { return runner(kernel, std::index_sequence_for<A...>{}); }

#define RUN(name) {#name, runner(name)}
const std::map<std::string, Run> KERNELS = {
    RUN(norm_f32_f32), RUN(norm_f32_bf16), RUN(norm_bf16_f32), RUN(norm_bf16_bf16), RUN(norm_f32_fp8), RUN(norm_bf16_fp8),
    RUN(gate_f32_f32), RUN(gate_f32_bf16), RUN(gate_bf16_bf16), RUN(gate_f32_fp8), RUN(gate_bf16_fp8), RUN(keep_f32_fp8),
    RUN(keep_bf16_fp8), RUN(widen_fp8), RUN(scale_f32), RUN(scale_bf16), RUN(turn_f32), RUN(turn_bf16), RUN(channel_sums), RUN(group_factors),
    RUN(apply_f32), RUN(apply_bf16), RUN(narrow), RUN(convolve), RUN(attend_64), RUN(attend_128),
};

} // namespace

int main() {
    std::string name;
    for (int c; (c = std::getchar()) != '\n';) {
        if (c == EOF) fail("the input has no kernel's name");
        name.push_back(char(c));
    }
    auto kernel = KERNELS.find(name);
    if (kernel == KERNELS.end()) fail("there is no kernel " + name);
    Dimensions grid{read<uint32_t>(), 1, 1};
    grid.y = read<uint32_t>();
    grid.z = read<uint32_t>();
    uint32_t threads = read<uint32_t>(), shared = read<uint32_t>(), count = read<uint32_t>();
    std::vector<Argument> arguments(count);
    for (Argument& argument : arguments) {
        argument.kind = read<char>();
        if (argument.kind == 'i') argument.integer = read<int32_t>();
        if (argument.kind == 'l') argument.integer = read<int64_t>();
        if (argument.kind == 'f') argument.real = read<float>();
        if (argument.kind == 'b') {
            // Vectors of bytes begin where 16 bytes may be loaded at once.
            argument.buffer.resize(read<uint64_t>());
            size_t size = argument.buffer.size();
            if (std::fread(argument.buffer.data(), 1, size, stdin) != size) fail("a buffer ends too early");
        }
    }
    emulator::launch(grid, int(threads), shared, [&] { kernel->second(arguments); });
    for (const Argument& argument : arguments) std::fwrite(argument.buffer.data(), 1, argument.buffer.size(), stdout);
}
