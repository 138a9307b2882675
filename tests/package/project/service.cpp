// service.cpp - the engine in C++17: handles that free themselves, a queue, a callback; the fields of a receipt.
#include <rvengine/rvdocument.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

template <class T, void (*FREE)(T *)> struct freed {
    void operator()(T *handle) const { FREE(handle); }
};
using model_handle = std::unique_ptr<rv_model, freed<rv_model, rv_model_free>>;
using session_handle = std::unique_ptr<rv_session, freed<rv_session, rv_session_free>>;
using job_handle = std::unique_ptr<rv_job, freed<rv_job, rv_job_free>>;
using schema_handle = std::unique_ptr<rv_schema, freed<rv_schema, rv_schema_free>>;
using record_handle = std::unique_ptr<rv_record, freed<rv_record, rv_record_free>>;

template <class HANDLE, class MAKE, class... ARGS> HANDLE made(MAKE make, ARGS... args) {
    rv_error err{};
    typename HANDLE::pointer handle = nullptr;
    if (make(args..., &handle, &err)) throw std::runtime_error(err.message);
    return HANDLE(handle);
}

static int answer(const char *folder, const char *file) {
    std::ifstream in(file, std::ios::binary);
    std::vector<char> bytes{ std::istreambuf_iterator<char>(in), {} };
    std::string heard;
    rv_load_options load{};
    load.size = sizeof load;
    rv_session_options room{};
    room.size = sizeof room;
    rv_image page{};
    page.size = sizeof page;
    page.data = bytes.data();
    page.bytes = bytes.size();
    rv_request request{};
    request.size = sizeof request;
    request.images = &page;
    request.n_images = 1;
    request.prompt = "Extract the receipt as KEY: VALUE lines.";
    request.user = &heard;
    request.on_token = [](void *user, rv_job *, const rv_token *token) -> int32_t { return static_cast<std::string *>(user)->append(token->text, token->bytes), 0; };

    model_handle model = made<model_handle>(rv_model_load, folder, &load);
    session_handle session = made<session_handle>(rv_session_new, model.get(), &room);
    job_handle job = made<job_handle>(rv_submit, session.get(), &request);
    rv_error err{};
    while (rv_wait(session.get(), 0))
        if (rv_step(session.get(), nullptr, &err)) throw std::runtime_error(err.message);
    std::size_t n = 0;
    std::string text = rv_job_text(job.get(), &n);
    if (text != heard || text.size() != n) throw std::runtime_error("what the callback heard is not the answer");

    schema_handle schema = made<schema_handle>(rv_schema_open, "demo_receipt");
    record_handle record = made<record_handle>(rv_record_new, schema.get(), nullptr);
    uint32_t found = 0;
    if (rv_record_parse(record.get(), text.data(), n, "free", &found, &err) || rv_record_check(record.get(), &err)) throw std::runtime_error(err.message);
    std::printf("%s\n%u fields\n", text.c_str(), found);
    return found > 4 ? 0 : 1;
}

int main(int argc, char **argv) try {
    return argc == 3 ? answer(argv[1], argv[2]) : 2;
} catch (const std::exception &error) {
    std::fprintf(stderr, "service: %s\n", error.what());
    return 1;
}
