// header_in_cpp.cpp - the public header is usable from C++17, and its symbols link.
#include "engine/rvengine.h"

#include <cstdio>
#include <cstring>

int main() {
    rv_error err{};
    rv_memory memory{};
    memory.size = sizeof memory;
    rv_load_options load{};
    load.size = sizeof load;
    rv_status st = rv_memory_plan("/no/such/model", &load, nullptr, &memory, &err);
    bool good = rv_abi() == RV_ABI && st == RV_ERR_IO && err.code == st && std::strstr(err.message, "/no/such/model");
    std::printf("rvengine %s: %s: %s\n", rv_version(), rv_status_name(st), err.message);
    return good ? 0 : 1;
}
