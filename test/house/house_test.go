package house

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table of imports in ARCHITECTURE.md")

const module = "kaniko-build"

// rank orders the top-level folders: a package imports only what is ranked
// lower, or its own folder. graph knows nothing of this program, so that plan
// may order its nodes by it.
var rank = map[string]int{"schema": 0, "graph": 1, "plan": 2, "executor": 3, "watch": 4, "cmd": 5}

// narrower are the packages that may import less of other folders than rank
// allows: exactly these.
var narrower = map[string][]string{
	"schema/diag": {},
	"plan/event":  {},
	"schema":      {"schema/diag"},
	"plan":        {"schema", "schema/diag", "graph"},
	"graph":       {},
	"executor":    {"schema/diag", "plan/event", "graph/queue"}, // of other folders; the manifest is not its business
}

// rooms are the packages below executor/internal: which of the others each may
// import. tree is how files are read, and everybody may use it.
var rooms = map[string][]string{
	"tree":       {},
	"wire":       {},
	"retry":      {},
	"dockerfile": {},
	"buildctx":   {"tree", "retry"},
	"store":      {},
	"sandbox":    {},
	"layer":      {"tree"},
	"snapshot":   {"tree"},
	"inplace":    {"tree", "layer", "snapshot"},
	"copier":     {"tree", "layer"},
	"emulator":   {},
	"rootfs":     {"tree", "layer", "store", "index"},
	"index":      {"tree"},
	"cache":      {"store", "image", "registry"}, // an entry is an image
	"registry":   {"store", "image", "retry"},    // image: what a manifest may hold
	"image":      {"store", "layer"},
	"sbom":       {},
	"prune":      {"store"},
	"object":     {"retry"},
	"credential": {},
}

// mayExit are packages beside main whose code is the end of a process that was
// started for it.
var mayExit = []string{"executor/internal/sandbox"}

// source is one parsed file.
type source struct {
	name string // relative to the module
	dir  string
	test bool
	file *ast.File
}

// parse reads every Go file of the module but for testdata and other modules.
func parse(t *testing.T) ([]source, *token.FileSet) {
	t.Helper()
	root := filepath.Join("..", "..")
	set := token.NewFileSet()
	var out []source
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			_, other := os.Stat(filepath.Join(p, "go.mod"))
			base := e.Name()
			if p != root && (other == nil || base == "testdata" || base == "cases" || strings.HasPrefix(base, ".") || base == "bin" || base == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(set, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, source{filepath.ToSlash(rel), path.Dir(filepath.ToSlash(rel)), strings.HasSuffix(rel, "_test.go"), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, set
}

// ours lists which packages of the module a file imports.
func (s source) ours() []string {
	var out []string
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue
		}
		if in, ok := strings.CutPrefix(p, module+"/"); ok {
			out = append(out, in)
		}
	}
	return out
}

func top(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func TestImportDirection(t *testing.T) {
	files, _ := parse(t)
	for _, s := range files {
		if s.test || top(s.dir) == "test" {
			continue
		}
		mine, ok := rank[top(s.dir)]
		if !ok {
			t.Errorf("%s: no rule knows the folder %s", s.name, top(s.dir))
			continue
		}
		for _, p := range s.ours() {
			theirs, ok := rank[top(p)]
			switch {
			case !ok:
				t.Errorf("%s imports %s, which is no part of the program", s.name, p)
			case top(p) == top(s.dir):
				if why := inside(s.dir, p); why != "" {
					t.Errorf("%s imports %s: %s", s.name, p, why)
				}
			case theirs > mine:
				t.Errorf("%s imports %s, which stands below it", s.name, p)
			default:
				allowed, ok := narrower[s.dir]
				if !ok {
					allowed, ok = narrower[top(s.dir)]
				}
				if ok && !slices.Contains(allowed, p) {
					t.Errorf("%s imports %s; of other folders %s knows %v only", s.name, p, s.dir, allowed)
				}
			}
		}
	}
}

// inside tells why a package may not import another one of its folder.
func inside(from, to string) string {
	const internal = "executor/internal/"
	room, isRoom := strings.CutPrefix(from, internal)
	other, otherIsRoom := strings.CutPrefix(to, internal)
	switch {
	case isRoom && !otherIsRoom:
		return "a room does not know what stands above it"
	case isRoom:
		room, other = top(room), top(other)
		if room == other {
			return ""
		}
		allowed, ok := rooms[room]
		if !ok {
			return "no rule knows this room; add it to rooms, with a reason"
		}
		if !slices.Contains(allowed, other) {
			return fmt.Sprintf("%s knows %v only", room, allowed)
		}
	case from == "schema/diag" || from == "plan/event":
		return "it is a leaf"
	}
	return ""
}

// forbidden is a use of a package's name that a rule is about.
type forbidden struct {
	pkg, name string
	why       string
	main      bool // allowed in package main
	test      bool // allowed in tests
}

var rules = []forbidden{
	{"os", "Exit", "only main ends the process", true, false},
	{"syscall", "Exit", "only main ends the process", true, false},
	{"golang.org/x/sys/unix", "Exit", "only main ends the process", true, false},
	{"log", "Fatal", "only main ends the process", true, false},
	{"log", "Fatalf", "only main ends the process", true, false},
	{"log", "Fatalln", "only main ends the process", true, false},
	{"fmt", "Print", "only cmd prints", true, true},
	{"fmt", "Printf", "only cmd prints", true, true},
	{"fmt", "Println", "only cmd prints", true, true},
	{"os", "Stdout", "only cmd prints", true, true},
	{"os", "Stderr", "only cmd prints", true, true},
	{"os", "Chdir", "it changes the whole process, and nodes run side by side", false, false},
	{"os", "Setenv", "it changes the whole process, and nodes run side by side", false, false},
	{"os", "Unsetenv", "it changes the whole process, and nodes run side by side", false, false},
}

func TestForbiddenCalls(t *testing.T) {
	files, set := parse(t)
	for _, s := range files {
		names := map[string]string{} // local name -> import path
		for _, i := range s.file.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				continue
			}
			local := path.Base(p)
			if i.Name != nil {
				local = i.Name.Name
			}
			names[local] = p
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok || names[x.Name] == "" {
				return true
			}
			for _, r := range rules {
				if names[x.Name] != r.pkg || sel.Sel.Name != r.name ||
					r.main && s.file.Name.Name == "main" || r.test && s.test ||
					r.why == "only main ends the process" && (slices.Contains(mayExit, s.dir) || s.test && endsMain(s.file, sel)) {
					continue
				}
				t.Errorf("%s:%d: %s.%s: %s", s.name, set.Position(sel.Pos()).Line, x.Name, r.name, r.why)
			}
			return true
		})
	}
}

// endsMain tells whether a call stands in TestMain or in a function that only
// a child process of the test runs.
func endsMain(f *ast.File, call ast.Node) bool {
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if ok && fn.Pos() <= call.Pos() && call.End() <= fn.End() {
			return fn.Name.Name == "TestMain" || strings.HasPrefix(fn.Name.Name, "child") || strings.HasSuffix(fn.Name.Name, "Child")
		}
	}
	return false
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	files, _ := parse(t)
	said := map[string]bool{}
	for _, s := range files {
		if s.test {
			continue
		}
		said[s.dir] = said[s.dir] || s.file.Doc != nil && strings.TrimSpace(s.file.Doc.Text()) != ""
	}
	for dir, ok := range said {
		if !ok {
			t.Errorf("%s: no package comment", dir)
		}
	}
}

var table = regexp.MustCompile(`(?s)<!-- imports -->\n(.*?)<!-- /imports -->`)

var quoted = regexp.MustCompile("`([^`]+)`")

// TestArchitectureHasTheImports compares the table between <!-- imports --> and
// <!-- /imports -->: a row for each package, its name and then all that it
// imports of this module, each in back quotes.
func TestArchitectureHasTheImports(t *testing.T) {
	file := filepath.Join("..", "..", "ARCHITECTURE.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := table.FindSubmatchIndex(text)
	if at == nil {
		t.Fatal("ARCHITECTURE.md has no table between <!-- imports --> and <!-- /imports -->")
	}
	want := importTable(t)
	if *update {
		next := slices.Concat(text[:at[2]], []byte(want), text[at[3]:])
		if err := os.WriteFile(file, next, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	rows := func(s string) map[string]string {
		out := map[string]string{}
		for _, l := range strings.Split(s, "\n") {
			var names []string
			for _, m := range quoted.FindAllStringSubmatch(l, -1) {
				names = append(names, m[1])
			}
			if len(names) > 0 {
				slices.Sort(names[1:])
				out[names[0]] = strings.Join(names[1:], ", ")
			}
		}
		return out
	}
	got, need := rows(string(text[at[2]:at[3]])), rows(want)
	for p, imports := range need {
		if have, ok := got[p]; !ok {
			t.Errorf("ARCHITECTURE.md: no row for %s, which imports: %s", p, imports)
		} else if have != imports {
			t.Errorf("ARCHITECTURE.md: %s imports %q, want %q", p, have, imports)
		}
	}
	for p := range got {
		if _, ok := need[p]; !ok {
			t.Errorf("ARCHITECTURE.md: a row for %s, which does not exist", p)
		}
	}
	if t.Failed() {
		t.Log("`go test ./test/house -update` rewrites the table")
	}
}

// importTable is the table as the code has it.
func importTable(t *testing.T) string {
	t.Helper()
	files, _ := parse(t)
	imports := map[string][]string{}
	for _, s := range files {
		if s.test || top(s.dir) == "test" {
			continue
		}
		list := append(imports[s.dir], s.ours()...)
		slices.Sort(list)
		imports[s.dir] = slices.Compact(list)
	}
	var dirs []string
	for d := range imports {
		dirs = append(dirs, d)
	}
	slices.SortFunc(dirs, func(a, b string) int {
		if r, q := rank[top(a)], rank[top(b)]; r != q {
			return r - q
		}
		return strings.Compare(a, b)
	})
	var b strings.Builder
	b.WriteString("| package | imports |\n|---|---|\n")
	for _, d := range dirs {
		var q []string
		for _, i := range imports[d] {
			q = append(q, "`"+i+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", d, strings.Join(q, ", "))
	}
	return b.String()
}
