// Labels of frames from a bundle, with OpenVINO alone: label BUNDLE WIDTH HEIGHT < frames.bgr
// Frames are raw BGR, WIDTH × HEIGHT × 3 bytes each, as `ffmpeg -i SRC -pix_fmt bgr24 -f rawvideo -` gives them. For each one the
// logits are printed on a line: divided by confidence.temperature of manifest.json, their softmax has calibrated probabilities.
// Shrinking and cropping are part of the graph, by the same two matrices as in edgeeff/data/frames.py.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <iterator>
#include <openvino/openvino.hpp>
#include <openvino/opsets/opset13.hpp>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

namespace op = ov::opset13;
using Node = ov::Output<ov::Node>;

// A fact from the bundle's manifest.json: the first value under that name.
static std::string fact(const std::string& manifest, const std::string& name) {
    std::smatch found;
    if (!std::regex_search(manifest, found, std::regex("\"" + name + "\": \"?([^\",\\n]+)")))
        throw std::runtime_error("manifest.json: no " + name);
    return found[1];
}

static Node axes(const std::vector<int64_t>& numbers) {
    return op::Constant::create(ov::element::i64, {numbers.size()}, numbers);
}

static double filter(double x, bool bicubic) {
    x = std::abs(x);
    if (!bicubic) return std::max(0.0, 1 - x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// Weights (count × used) of the old pixels for each of the new ones from `start` on; `first` becomes the first old pixel used.
static Node taps(int size, int resized, int start, int count, bool bicubic, int64_t& first, int64_t& used) {
    const double scale = double(size) / resized, wide = std::max(scale, 1.0), reach = wide * (bicubic ? 2 : 1);
    auto low = [&](int i) { return std::max(int((start + i + 0.5) * scale - reach + 0.5), 0); };
    auto high = [&](int i) { return std::min(int((start + i + 0.5) * scale + reach + 0.5), size); };
    first = size == resized ? start : low(0);
    used = size == resized ? count : high(count - 1) - first;
    std::vector<float> weights(count * used, 0.f);
    for (int i = 0; i < count; ++i) {
        if (size == resized) {
            weights[i * used + i] = 1.f;
            continue;
        }
        const double centre = (start + i + 0.5) * scale;
        double sum = 0;
        for (int p = low(i); p < high(i); ++p) sum += filter((p - centre + 0.5) / wide, bicubic);
        for (int p = low(i); p < high(i); ++p)
            weights[i * used + p - first] = float(filter((p - centre + 0.5) / wide, bicubic) / sum);
    }
    return op::Constant::create(ov::element::f32, {size_t(count), size_t(used)}, weights);
}

// The model with frames (height, width, 3) as its input.
static std::shared_ptr<ov::Model> behind_a_camera(std::shared_ptr<ov::Model> model, const std::string& manifest, int width, int height) {
    const int size = std::stoi(fact(manifest, "resolution")), most = std::stoi(fact(manifest, "resize"));
    const bool bicubic = fact(manifest, "interpolation") == "bicubic";
    const int side = std::min(width, height), target = std::max(size, std::min(most, side));
    auto scaled = [&](int n) { return std::max(target, int(std::nearbyint(double(n) * target / side))); };
    int64_t top, left, h, w;
    const Node rows = taps(height, scaled(height), (scaled(height) - size) / 2, size, bicubic, top, h);
    const Node columns = taps(width, scaled(width), (scaled(width) - size) / 2, size, bicubic, left, w);

    auto frame = std::make_shared<op::Parameter>(ov::element::u8, ov::Shape{size_t(height), size_t(width), 3});
    Node x = std::make_shared<op::Slice>(frame, axes({top, left}), axes({top + h, left + w}), axes({1, 1}), axes({0, 1}));
    x = std::make_shared<op::Convert>(x, ov::element::f32);
    x = std::make_shared<op::MatMul>(rows, std::make_shared<op::Reshape>(x, axes({h, 3 * w}), false));
    x = std::make_shared<op::Transpose>(std::make_shared<op::Reshape>(x, axes({size, w, 3}), false), axes({0, 2, 1}));
    x = std::make_shared<op::MatMul>(std::make_shared<op::Reshape>(x, axes({3 * size, w}), false), columns, false, true);
    x = std::make_shared<op::Transpose>(std::make_shared<op::Reshape>(x, axes({size, 3, size}), false), axes({0, 2, 1}));
    x = std::make_shared<op::Clamp>(std::make_shared<op::Round>(x, op::Round::RoundMode::HALF_TO_EVEN), 0, 255);
    x = std::make_shared<op::Convert>(x, ov::element::u8);
    if (fact(manifest, "colour") == "RGB")  // frames are BGR
        x = std::make_shared<op::Gather>(x, axes({2, 1, 0}), op::Constant::create(ov::element::i64, {}, {2}));
    x = std::make_shared<op::Unsqueeze>(x, axes({0}));
    for (auto reader : model->input(0).get_target_inputs()) reader.replace_source_output(x);
    return std::make_shared<ov::Model>(model->get_results(), ov::ParameterVector{frame}, "camera");
}

int main(int count, char** arguments) try {
    if (count != 4) throw std::runtime_error("usage: label BUNDLE WIDTH HEIGHT < frames.bgr");
    const std::string bundle = arguments[1];
    const int width = std::stoi(arguments[2]), height = std::stoi(arguments[3]);
    std::ifstream file(bundle + "/manifest.json");
    const std::string manifest{std::istreambuf_iterator<char>(file), {}};
    if (fact(manifest, "backend") != "openvino") throw std::runtime_error(bundle + ": not a bundle for OpenVINO");

    ov::Core core;
    const std::string precision = fact(manifest, "precision");
    const bool bf16 = precision.size() >= 4 && precision.compare(precision.size() - 4, 4, "bf16") == 0;
    auto model = behind_a_camera(core.read_model(bundle + "/" + fact(manifest, "model")), manifest, width, height);
    auto request = core.compile_model(model, "CPU",
                                      ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                                      ov::hint::inference_precision(bf16 ? ov::element::bf16 : ov::element::f32))
                       .create_infer_request();

    auto frame = request.get_input_tensor();
    while (std::cin.read(static_cast<char*>(frame.data()), frame.get_byte_size())) {
        request.infer();
        const auto logits = request.get_output_tensor();
        for (size_t i = 0; i < logits.get_size(); ++i) std::cout << (i ? " " : "") << logits.data<float>()[i];
        std::cout << std::endl;
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << "label: " << error.what() << std::endl;
    return 2;
}
