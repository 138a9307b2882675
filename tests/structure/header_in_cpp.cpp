// header_in_cpp.cpp - the public headers are usable from C++17, and their symbols link.
#include "engine/rvengine.h"
#include "engine/rvconstraint.h"
#include "engine/rvdocument.h"
#include "engine/rvextract.h"
#include "engine/rvprofile.h"

#include <cstdio>
#include <cstring>

int main() {
    rv_error err{};
    rv_memory memory{};
    memory.size = sizeof memory;
    rv_load_options load{};
    load.size = sizeof load;
    rv_schema *schema = nullptr;
    rv_schema_info info{};
    info.size = sizeof info;
    bool fields = rv_schema_open("universal", &schema, &err) == RV_OK && rv_schema_get_info(schema, &info, &err) == RV_OK && info.fields == 47;
    rv_schema_free(schema);
    rv_status st = rv_memory_plan("/no/such/model", &load, nullptr, &memory, &err);
    bool good = fields && rv_abi() == RV_ABI && st == RV_ERR_IO && err.code == st && std::strstr(err.message, "/no/such/model");
    std::printf("rvengine %s: %s: %s\n", rv_version(), rv_status_name(st), err.message);
    return good ? 0 : 1;
}
