// One colouring by ColPack in a process of its own: several in one process misreport their counts.
//
//     colpack_main PATTERN KIND ORDER COLORS
//
// PATTERN holds int32: n, n + 1 row offsets, column numbers. KIND and ORDER are ColPack's names. Writes n
// int32 colours to COLORS and prints the CPU seconds of ordering and colouring, without reading and building.

#include <cstdint>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <ColPack/ColPackHeaders.h>

namespace {

std::vector<std::int32_t> read(std::ifstream &file, std::size_t length) {
    std::vector<std::int32_t> values(length);
    if (!file.read(reinterpret_cast<char *>(values.data()), length * sizeof(std::int32_t)))
        throw std::runtime_error("the pattern ends too early");
    return values;
}

// Rows as ColPack takes them: each begins with its length.
struct Rows {
    std::vector<unsigned> storage;
    std::vector<unsigned *> begins;

    explicit Rows(const char *path) {
        std::ifstream file(path, std::ios::binary);
        const std::size_t n = read(file, 1)[0];
        const auto offsets = read(file, n + 1);
        const auto columns = read(file, offsets[n]);
        storage.reserve(n + columns.size());
        begins.reserve(n);
        for (std::size_t row = 0; row < n; ++row) {
            begins.push_back(storage.data() + storage.size());
            storage.push_back(offsets[row + 1] - offsets[row]);
            storage.insert(storage.end(), columns.begin() + offsets[row], columns.begin() + offsets[row + 1]);
        }
    }
};

}  // namespace

int main(int count, char **arguments) {
    if (count != 5) {
        std::fprintf(stderr, "usage: colpack_main PATTERN KIND ORDER COLORS\n");
        return 2;
    }
    const std::string kind = arguments[2], order = arguments[3];
    ColPack::GraphColoringInterface graph(SRC_WAIT);
    {
        Rows rows(arguments[1]);
        graph.BuildGraphFromRowCompressedFormat(rows.begins.data(), static_cast<int>(rows.begins.size()));
    }
    const std::clock_t began = std::clock();
    if (kind == "NAIVE_STAR")
        graph.NaiveStarColoring(order);  // Coloring() does not know it
    else
        graph.Coloring(order, kind);
    const double seconds = static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
    std::vector<int> colors;
    graph.GetVertexColors(colors);
    if (static_cast<int>(colors.size()) != graph.GetVertexCount()) {
        std::fprintf(stderr, "ColPack has not coloured by %s, %s\n", kind.c_str(), order.c_str());
        return 1;
    }
    std::ofstream(arguments[4], std::ios::binary)
        .write(reinterpret_cast<const char *>(colors.data()), colors.size() * sizeof(int));
    std::printf("\n%.6f\n", seconds);
    return 0;
}
