# SPDX-License-Identifier: Apache-2.0
"""The architecture tests find what is planted for them, and nothing in clean text."""

import pathlib
import tempfile
import unittest

import budget_test
import header_test
import layering_test
import source_tree
import text_test

HEAD = "// SPDX-License-Identifier: Apache-2.0\n"


class PlantedFaults(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self._folder.name)
        self.plant("tests/arch/layers.txt", "core ->\ncomm -> core\nmodel -> core\ncli -> core comm model\n")
        self.plant("tests/arch/budget_exempt.txt", "")
        self.plant("CMakeLists.txt", "set(KAMERTON_TORCH_FREE core)\n")
        self.plant("include/kamerton/core/error.h", HEAD + "#pragma once\n")
        self.plant("include/kamerton/model/decoder.h", HEAD + "#pragma once\n")

    def tearDown(self):
        self._folder.cleanup()

    def plant(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")

    def assert_layering(self, path, text, expected):
        self.plant(path, text)
        faults = layering_test.faults_of(self.root)
        self.assertEqual(len(faults), 0 if expected is None else 1, faults)
        if expected is not None:
            self.assertIn(expected, faults[0])

    def test_clean_tree_has_no_fault(self):
        self.plant("src/comm/a.cpp", HEAD + '#include <mpi.h>\n#include "kamerton/core/error.h"\nvoid f() {}\n')
        for checker in (layering_test, budget_test, text_test, header_test):
            self.assertEqual(checker.faults_of(self.root), [])

    def test_upward_and_sideways_includes(self):
        self.assert_layering("src/comm/a.cpp", '#include "kamerton/model/decoder.h"\n', "src/comm/a.cpp:1")

    def test_missing_header(self):
        self.assert_layering("src/comm/a.cpp", '#include "kamerton/core/gone.h"\n', "names no public header")

    def test_private_header_of_another_module(self):
        self.plant("src/core/secret.h", HEAD)
        self.assert_layering("src/comm/a.cpp", '#include "secret.h"\n', "no private header")

    def test_way_around_through_folders(self):
        self.assert_layering("src/comm/a.cpp", '#include "../core/error.cpp"\n', "leaves its module")
        self.plant("src/comm/b.h", HEAD)
        self.plant("src/comm/a.cpp", "")
        self.assert_layering("src/comm/inner/c.cpp", '#include "../b.h"\n', None)

    def test_foreign_third_party_header(self):
        self.assert_layering("src/model/a.cpp", "#include <mpi.h>\n", "belongs to src/comm/")

    def test_google_test_in_the_product(self):
        self.assert_layering("src/model/a.cpp", "#include <gtest/gtest.h>\n", "no product code")

    def test_libtorch_in_a_module_without_it(self):
        self.assert_layering("src/core/a.cpp", "#include <ATen/ATen.h>\n", "libtorch")
        self.plant("src/core/a.cpp", "")
        self.assert_layering("src/model/a.cpp", "#include <ATen/ATen.h>\n", None)

    def test_json_in_a_public_header(self):
        self.assert_layering("include/kamerton/model/a.h", "#include <nlohmann/json.hpp>\n", "public headers")

    def test_module_without_a_line(self):
        self.assert_layering("src/stray/a.cpp", "\n", "no line")

    def test_cycle_in_layers(self):
        self.plant("tests/arch/layers.txt", "core -> comm\ncomm -> core\nmodel ->\n")
        self.assertIn("earlier lines only", layering_test.faults_of(self.root)[0])

    def test_long_file_and_long_function(self):
        self.plant("src/core/a.cpp", HEAD + "int x;\n" * 500)
        self.plant("src/core/b.cpp", HEAD + "void f(int a = {}) {\n" + "  g();\n" * 59 + "}\n")
        self.plant("src/main.cpp", HEAD + "int x;\n" * 40)
        self.assertEqual(len(budget_test.faults_of(self.root)), 3)

    def test_function_of_just_the_allowed_length(self):
        self.plant("src/core/b.cpp", HEAD + "void f() {\n" + "  g();\n" * 58 + "}\n")
        self.assertEqual(budget_test.faults_of(self.root), [])

    def test_exemption_needs_a_file_and_a_reason(self):
        self.plant("src/core/a.cpp", HEAD + "int x;\n" * 500)
        self.plant("tests/arch/budget_exempt.txt", "src/core/a.cpp: a table\n")
        self.assertEqual(budget_test.faults_of(self.root), [])
        self.plant("tests/arch/budget_exempt.txt", "src/core/a.cpp:\nsrc/core/gone.cpp: a table\n")
        self.assertEqual(len(budget_test.faults_of(self.root)), 2)

    def test_functions_are_found_in_every_dress(self):
        body = "{\n" + "  if (x) {\n  }\n" * 40 + "}\n"
        for head in ("static int f(const std::function<int(int)>& g) noexcept ", "template <class T, class U = X<T>>\nauto A<T>::f() -> U ",
                     "A::A(int x) : a_(x), b_{1} ", "TEST(Thing, Works) ", "const auto f = [](int x) ",
                     "namespace a {\nnamespace b {\nclass C final : public D {\n  void f() const override ",
                     "/* { */ int f(char c = '{') ", "const char* s = R\"({)\";\nint f() ", "#define M(x) {\nint f() ",
                     "int big = 1'000'000;\nint f() ", "struct alignas(16) S {\n  int f() "):
            self.plant("src/core/a.cpp", HEAD + head + body + "}\n" * head.count("{\n"))
            self.assertEqual(len(budget_test.faults_of(self.root)), 1, head)

    def test_tables_are_not_functions(self):
        for head in ("constexpr int kTable[] = ", "const std::array<int, 3> k", "enum class E : int ", "struct S "):
            self.plant("src/core/a.cpp", HEAD + head + "{\n" + "  1,\n" * 100 + "};\n")
            self.assertEqual(budget_test.faults_of(self.root), [], head)

    def test_unfinished_words(self):
        for word in ("TO" "DO: later", "FIX" "ME", "a HA" "CK", "X" "XX here", "TEST(A, DIS" "ABLED_B)"):
            self.plant("src/core/a.cpp", HEAD + "// " + word + "\n")
            self.assertEqual(len(text_test.faults_of(self.root)), 1, word)
        self.plant("src/core/a.cpp", HEAD + "// mkstemp(\"f_" + 6 * "X" + "\"), todo list\n")
        self.assertEqual(text_test.faults_of(self.root), [])

    def test_forbidden_calls_licence_and_guards(self):
        for line in ("std::mt19937 g;", "int x = rand();", "std::exit(1);", "exit(1);"):
            self.plant("src/core/a.cpp", HEAD + line + "\n")
            self.assertEqual(len(text_test.faults_of(self.root)), 1, line)
        self.plant("src/core/a.cpp", HEAD + "session.exit(1);  // exit(1)\nconst char* s = \"exit(1)\"; draw_rand(2); on_exit_(1);\n")
        self.assertEqual(text_test.faults_of(self.root), [])
        self.plant("src/core/a.h", "int x;\n")
        self.assertEqual(len(text_test.faults_of(self.root)), 2)

    def test_header_that_leans_on_others(self):
        self.plant("include/kamerton/core/a.h", HEAD + "#pragma once\n// std::map\nstd::vector<int> f();\n")
        self.assertIn("<vector>", header_test.faults_of(self.root)[0])
        self.plant("include/kamerton/core/b.h", HEAD + '#pragma once\n#include <vector>\n')
        self.plant("include/kamerton/core/a.h", HEAD + '#pragma once\n#include "kamerton/core/b.h"\nstd::vector<int> f();\n')
        self.assertEqual(header_test.faults_of(self.root), [])

    def test_line_numbers_survive_blanking(self):
        text = 'a /* 1\n2 */ b "x\\"{" R"m({\n)m" c // {\n\'{\' d'
        blanked = source_tree.without_comments_and_strings(text)
        self.assertEqual(blanked.count("\n"), text.count("\n"))
        self.assertNotIn("{", blanked)


if __name__ == "__main__":
    unittest.main()
