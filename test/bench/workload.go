package bench

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Workload is one kind of work.
type Workload struct {
	Name  string
	What  string
	Needs []string // base images, as test/mirror calls them
	// Write makes it in dir; registry stands in for docker.io and receives the images.
	Write func(dir, registry string) error
	// Changes are what is measured after the no-op, each a change and its undoing.
	Changes []Change
	// Budgets are what an idle machine with two CPUs should need, by case.
	Budgets map[string]time.Duration
	// Steps are the first and last of the steps whose mean is a case, each a RUN
	// that does next to nothing. They are those of a single stage.
	Steps [2]int
	// Knows is what of the state another machine has: its cold build is a case of
	// that name.
	Knows string
	// Big says that one cold build takes long enough to be measured once.
	Big bool
	// Peer is the share of another builder's time that a cold build in a container
	// may take; 0: it is not built in one.
	Peer float64
	// Within is the memory, in bytes, with which a container has to be content; 0 was
	// not asked.
	Within int64
}

// Change is an edit of one file.
type Change struct {
	Name string
	File string // relative to the workload
	Data string // appended; %d is another number each time
}

// memoryLimit is what no process of ours may pass, however big a layer is.
const memoryLimit = 150 << 20

// firstLine is the case of a plan that begins to answer.
const firstLine = "first line"

// notPushed is the case of a no-op that only has the store to look at: with pushing, a
// registry is asked whether each tag is still there, which for many images takes it
// longer than us.
const notPushed = "not pushed"

// aStep is what a RUN may take beyond its command, which here is nearly nothing.
const aStep = 30 * time.Millisecond

// noOp is what 20 images with 20,000 files may take when nothing is to be done.
const noOp = 150 * time.Millisecond

// All are the workloads, in the order of their cost.
var All = []Workload{
	{Name: "steps", What: "40 RUNs that change one small file each", Needs: []string{"debian"}, Write: steps, Steps: [2]int{1, 40}, Peer: 0.5,
		Budgets: map[string]time.Duration{"a step": aStep, firstLine: 30 * time.Millisecond, "no-op": noOp}},
	{Name: "bigctx", What: "a context of 20,000 files, 160 MB, copied whole", Needs: []string{"debian"}, Write: bigctx, Peer: 1,
		Budgets: map[string]time.Duration{"no-op": noOp},
		Changes: []Change{{"one file", "src/d1/f1.txt", "changed %d"}}},
	{Name: "wide", What: "20 images over one context of 20,000 files", Needs: []string{"debian"}, Big: true,
		Budgets: map[string]time.Duration{"no-op": noOp},
		Write:   func(dir, registry string) error { return wide(dir, registry, 20) },
		Changes: []Change{{"one file", "src/d1/f1.txt", "changed %d"}}},
	{Name: "many", What: "1,000 images of a file each on one base", Needs: []string{"debian"}, Big: true,
		Budgets: map[string]time.Duration{notPushed: time.Second},
		Write:   func(dir, registry string) error { return many(dir, registry, 1000) },
		Changes: []Change{{"one file", "images/img0500/number", "changed %d"}}},
	{Name: "mono", What: "a base and 20 services of two stages on it", Needs: []string{"debian"}, Peer: 1,
		Budgets: map[string]time.Duration{"no-op": noOp},
		Write:   func(dir, registry string) error { return mono(dir, registry, 20, true) },
		Changes: []Change{
			{"one file", "services/svc03/static/a1.bin", "changed %d"},
			{"library", "lib/lib.go", "\nconst Changed = %d\n"},
			{"comment", "lib/lib.go", "\n// changed %d\n"},
		}},
	{Name: "monogo", What: "a base and 6 Go services that are compiled", Needs: []string{"debian", "golang"}, Big: true, Peer: 1,
		Budgets: map[string]time.Duration{"no-op": noOp},
		Write:   func(dir, registry string) error { return mono(dir, registry, 6, false) },
		Changes: []Change{
			{"one file", "services/svc03/static/a1.bin", "changed %d"},
			{"library", "lib/lib.go", "\nfunc init() { println(%d) }\n"},
			{"comment", "lib/lib.go", "\n// changed %d\n"},
		}},
	{Name: "copies", What: "two copies onto a base of 560 MB", Needs: []string{"golang"}, Write: copies, Big: true, Knows: "indexes",
		Budgets: map[string]time.Duration{"no-op": noOp},
		Changes: []Change{{"one file", "app/f1", "changed %d"}}},
	{Name: "tree", What: "100,000 files, ten changes, a deletion and a move", Needs: []string{"debian"}, Write: tree, Big: true, Steps: [2]int{2, 11}, Peer: 0.5,
		Budgets: map[string]time.Duration{"a step": aStep, "no-op": noOp}},
	{Name: "biglayer", What: "one layer of 1 GB, half of it compressible", Needs: []string{"debian"}, Big: true, Peer: 0.5, Within: 200 << 20,
		Budgets: map[string]time.Duration{"no-op": noOp},
		Write:   func(dir, registry string) error { return biglayer(dir, registry, 1024) }},
	{Name: "biglayer2", What: "one layer of 2 GB, half of it compressible", Needs: []string{"debian"}, Big: true,
		Budgets: map[string]time.Duration{"no-op": noOp},
		Write:   func(dir, registry string) error { return biglayer(dir, registry, 2048) }},
}

// repo collects the files of a workload.
type repo struct {
	dir, registry string
	targets       []target
	err           error
}

type target struct {
	Name       string
	Dockerfile string   // relative to the workload, as Context is
	Context    string   // of which Dockerfile is a file
	Deps       []string `json:",omitempty"` // named contexts, each another target
}

// put writes one file with a time in the past, so that no cache thinks that it
// was written just now.
func (r *repo) put(name string, data []byte) {
	if r.err != nil {
		return
	}
	p := filepath.Join(r.dir, name)
	if r.err = os.MkdirAll(filepath.Dir(p), 0o755); r.err != nil {
		return
	}
	if r.err = os.WriteFile(p, data, 0o644); r.err != nil {
		return
	}
	r.err = os.Chtimes(p, past, past)
}

var past = time.Unix(1700000000, 0)

func (r *repo) text(name, text string) { r.put(name, []byte(strings.TrimLeft(text, "\n"))) }

// targetsFile has the targets of a workload for builders that know no manifest, in
// the order of their builds.
const targetsFile = "targets.json"

// finish writes the manifest and the list of targets.
func (r *repo) finish() error {
	list, err := json.MarshalIndent(r.targets, "", " ")
	if err != nil {
		return err
	}
	r.put(targetsFile, list)
	name := filepath.Base(r.dir)
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nregistries:\n  docker.io: {mirrors: [%q]}\n  %q: {insecure: true}\nrun: {push: true}\ntargets:\n", r.registry, r.registry)
	for _, t := range r.targets {
		fmt.Fprintf(&b, "  %s:\n    context: %s\n    dockerfile: //%s\n    image: %s/lab/%s-%s\n    tags: [latest]\n", t.Name, t.Context, t.Dockerfile, r.registry, name, t.Name)
		for _, d := range t.Deps {
			fmt.Fprintf(&b, "    contexts: {%s: \"target:%s\"}\n", d, d)
		}
	}
	r.text("kaniko-build.yaml", b.String())
	return r.err
}

// single is a workload of one image.
func single(dir, registry, dockerfile string) error {
	r := &repo{dir: dir, registry: registry}
	r.text("Dockerfile", dockerfile)
	r.targets = []target{{Name: filepath.Base(dir), Dockerfile: "Dockerfile", Context: "."}}
	return r.finish()
}

// mono is one base and n services on it; light ones cost nothing but the
// overhead of the tool, others are compiled. Comments are nothing to either.
func mono(dir, registry string, n int, light bool) error {
	r := &repo{dir: dir, registry: registry}
	r.text("base/Dockerfile", `
FROM debian:bookworm-slim
RUN mkdir -p /opt/platform && for i in $(seq 1 300); do echo "platform $i" > /opt/platform/f$i; done
RUN useradd -r -u 900 app
ENV PLATFORM=1
`)
	r.targets = []target{{Name: "base", Dockerfile: "base/Dockerfile", Context: "base"}}
	r.text("go.mod", "module lab\n\ngo 1.26\n")
	r.text("lib/lib.go", "package lib\n\nimport \"fmt\"\n\nfunc Hello(s string) string { return fmt.Sprintf(\"hello %s\", s) }\n")
	rnd := random(7)
	for i := range n {
		s := fmt.Sprintf("svc%02d", i)
		r.text("services/"+s+"/main.go", fmt.Sprintf(`
package main

import (
	"fmt"
	"lab/lib"
	"net/http"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, lib.Hello("%s")) })
	http.ListenAndServe(":80%02d", nil)
}
`, s, i))
		for k := range 50 {
			r.put(fmt.Sprintf("services/%s/static/a%d.bin", s, k), rnd(4096))
		}
		build, base := "RUN CGO_ENABLED=0 go build -o /out/app ./services/"+s, "golang:1.26"
		if light {
			build = fmt.Sprintf("RUN mkdir -p /out && cat lib/*.go services/%s/*.go | sed '/^\\/\\//d' > /out/app && for i in $(seq 1 200); do echo $i > /out/g$i; done", s)
			base = "debian:bookworm-slim"
		}
		r.text("services/"+s+"/Dockerfile", fmt.Sprintf(`
FROM %[1]s AS build
WORKDIR /src
COPY go.mod ./
COPY lib ./lib
COPY services/%[2]s ./services/%[2]s
%[3]s
FROM base
COPY services/%[2]s/static /srv/static
COPY --from=build /out /usr/local/app
RUN chmod 755 /usr/local/app/app
USER app
ENTRYPOINT ["/usr/local/app/app"]
`, base, s, build))
		r.targets = append(r.targets, target{s, "services/" + s + "/Dockerfile", ".", []string{"base"}})
	}
	return r.finish()
}

func steps(dir, registry string) error {
	var b strings.Builder
	b.WriteString("FROM debian:bookworm-slim\n")
	for i := range 40 {
		fmt.Fprintf(&b, "RUN echo %d > /etc/step%d\n", i, i)
	}
	return single(dir, registry, b.String())
}

func copies(dir, registry string) error {
	r := &repo{dir: dir, registry: registry}
	for i := range 100 {
		r.text(fmt.Sprintf("app/f%d", i), strings.Repeat(fmt.Sprintln(i), 1000))
	}
	if r.err != nil {
		return r.err
	}
	return single(dir, registry, "FROM golang:1.26\nWORKDIR /srv\nCOPY app .\nCOPY --chown=nobody app/f1 /etc/app.conf\nCMD [\"cat\", \"/etc/app.conf\"]\n")
}

func tree(dir, registry string) error {
	var b strings.Builder
	b.WriteString("FROM debian:bookworm-slim\nRUN mkdir /big && cd /big && for d in $(seq 1 200); do mkdir d$d; seq 1 500 | sed \"s,^,d$d/f,\" | xargs touch; done\n")
	for i := 1; i <= 10; i++ {
		fmt.Fprintf(&b, "RUN echo %d > /big/d%d/changed\n", i, i)
	}
	b.WriteString("RUN rm -rf /big/d1 /big/d2 && mv /big/d3 /big/d3x\n")
	return single(dir, registry, b.String())
}

func biglayer(dir, registry string, mb int) error {
	return single(dir, registry, fmt.Sprintf(`FROM debian:bookworm-slim
RUN head -c %[1]dM /dev/urandom > /rand && cat /usr/bin/* /usr/lib/x86_64-linux-gnu/*.so* > /one && for i in $(seq 1 %[2]d); do cat /one; done | head -c %[1]dM > /half && rm /one
RUN touch /done
`, mb/2, mb/25))
}

func bigctx(dir, registry string) error {
	if err := manyFiles(&repo{dir: dir, registry: registry}); err != nil {
		return err
	}
	return single(dir, registry, "FROM debian:bookworm-slim\nCOPY src /src\nRUN ls /src | wc -l > /count\n")
}

// manyFiles writes 20,000 files of 8 KiB below src.
func manyFiles(r *repo) error {
	rnd := random(3)
	tail := []byte(strings.Repeat("x", 4096))
	for i := range 20000 {
		r.put(fmt.Sprintf("src/d%d/f%d.txt", i%200, i), append(rnd(4096), tail...))
	}
	return r.err
}

// wide is n images that all copy the same many files.
func wide(dir, registry string, n int) error {
	r := &repo{dir: dir, registry: registry}
	if err := manyFiles(r); err != nil {
		return err
	}
	for i := range n {
		name := fmt.Sprintf("img%02d", i)
		r.text("images/"+name+"/Dockerfile", fmt.Sprintf("FROM debian:bookworm-slim\nCOPY src /src\nRUN echo %d > /number\n", i))
		r.targets = append(r.targets, target{Name: name, Dockerfile: "images/" + name + "/Dockerfile", Context: "."})
	}
	return r.finish()
}

// many is n images, each with a file of its own.
func many(dir, registry string, n int) error {
	r := &repo{dir: dir, registry: registry}
	for i := range n {
		name := fmt.Sprintf("img%04d", i)
		r.text("images/"+name+"/number", fmt.Sprintln(i))
		r.text("images/"+name+"/Dockerfile", "FROM debian:bookworm-slim\nCOPY number /number\n")
		r.targets = append(r.targets, target{Name: name, Dockerfile: "images/" + name + "/Dockerfile", Context: "images/" + name})
	}
	return r.finish()
}

// random makes bytes that are the same every time.
func random(seed uint64) func(n int) []byte {
	src := rand.NewChaCha8([32]byte{byte(seed)})
	return func(n int) []byte {
		b := make([]byte, n)
		src.Read(b)
		return b
	}
}
