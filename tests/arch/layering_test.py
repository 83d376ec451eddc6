# SPDX-License-Identifier: Apache-2.0
"""Every include obeys layers.txt, and third-party headers stay with the module that owns them."""

import re
import sys

import source_tree as tree

# Third-party headers and the paths that may include them (product code; tests and benchmarks are free, except gtest).
OWNERS = [
    (r"mpi\.h", ("src/comm/",)),
    (r"(hdf5|H5[A-Z]\w*)\.h|hdf5/.*", ("src/storage/",)),
    (r"sodium\.h|sodium/.*", ("src/storage/", "src/privacy/")),
    (r"openssl/.*", ("src/privacy/",)),
    (r"(grpc|grpcpp|google/protobuf)/.*|.*\.(grpc\.)?pb\.h", ("src/transport/",)),
    (r"Eigen/.*", ("src/federation/",)),
    (r"yaml-cpp/.*", ("src/config/",)),
    (r"boost/.*", ("src/cli/",)),
    (r"pcre2\.h|utf8proc\.h", ("src/text/",)),
    (r"spdlog/.*", ("src/core/",)),
    (r"nccl\.h|cuda.*\.h|cublas.*\.h|nvtx.*|ATen/cuda/.*|c10/cuda/.*", ("src/comm/gpu/", "src/gpu")),
    (r"gtest/.*|gmock/.*", ()),
    (r"torch/torch\.h|torch/all\.h|torch/nn.*", ()),
]
MAIN_MAY_USE = {"cli", "comm", "core"}


def check_layers_file(layers):
    faults = []
    known = set()
    for module, needs in layers.items():
        for need in needs:
            if need not in known:
                faults.append(f"tests/arch/layers.txt: {module} -> {need}: a module may name earlier lines only")
        known.add(module)
    return faults


def allowed_modules(path, layers):
    """The modules that a file may include; None: any."""
    module = tree.module_of(path)
    if path.as_posix() == "src/main.cpp":
        return MAIN_MAY_USE
    if module not in layers:
        return None
    allowed = {module, *layers[module]}
    return allowed | {"comm"} if path.parts[:2] == ("tests", "dist") else allowed


def check_module_include(root, path, name, allowed):
    """The fault of one quoted include, or None."""
    match = re.match(r"kamerton/([a-z0-9_]+)/", name)
    if match:
        if allowed is not None and match.group(1) not in allowed:
            return f"may not use '{match.group(1)}'"
        return None if (root / "include" / name).exists() else "names no public header"
    module = tree.module_of(path)
    if ".." in name:
        target = (root / path.parent / name).resolve()
        inside = target.is_file() and target.is_relative_to((root / "src" / str(module)).resolve())
        return None if inside and path.parts[0] == "src" else "leaves its module"
    if path.parts[0] == "include" or module is None:
        return "is not a public header" if path.parts[0] == "include" else None
    private = [root / path.parent / name, root / "src" / module / name, root / "tests" / name]
    return None if any(p.exists() for p in private) else f"is no private header of '{module}'"


def check_third_party(path, bracket, name, torch_free):
    text = path.as_posix()
    if path.parts[0] not in ("include", "src"):
        return None
    for pattern, owners in OWNERS:
        if re.fullmatch(pattern, name) and not any(text.startswith(owner) for owner in owners):
            return "belongs to " + (" or ".join(owners) if owners else "no product code")
    if re.match(r"(ATen|torch|c10)/", name) and (tree.module_of(path) in torch_free or text == "src/main.cpp"):
        return "libtorch may not be seen here"
    if path.parts[0] == "include" and re.match(r"(nlohmann|fmt)/", name):
        if (text, name) != ("include/kamerton/core/json.h", "nlohmann/json_fwd.hpp"):
            return "public headers know JSON through kamerton/core/json.h, and no fmt"
    return None


def faults_of(root):
    layers = tree.layers(root)
    torch_free = tree.torch_free(root)
    faults = check_layers_file(layers)
    if not torch_free:
        faults.append("CMakeLists.txt: KAMERTON_TORCH_FREE was not found")
    for path in tree.cpp_files(root):
        module = tree.module_of(path)
        if module is not None and module not in layers:
            faults.append(f"{path}: the module '{module}' has no line in tests/arch/layers.txt")
            continue
        allowed = allowed_modules(path, layers)
        for line, bracket, name in tree.includes(tree.read(root, path)):
            fault = check_third_party(path, bracket, name, torch_free)
            if fault is None and bracket == '"':
                fault = check_module_include(root, path, name, allowed)
            if fault is not None:
                faults.append(f"{path}:{line}: {name}: {fault}")
    return faults


if __name__ == "__main__":
    sys.exit(tree.report("layering", faults_of(tree.root_from_arguments())))
