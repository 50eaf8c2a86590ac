package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"kaniko-build/test/rig"
)

// Tool is a builder that lies in an image and knows kaniko's command line.
type Tool struct {
	Name  string
	Image string // that the engine has
}

// Containers measures workloads as a pipeline builds them: each target in one
// new container of a tool's image, a default one.
type Containers struct {
	Docker *rig.Docker
	Ours   Tool
	Peer   *Tool // builds everything, too, by turns; nil: nobody does
	Dir    string
	Rounds int
	Cold   bool // only builds without a cache, which are what is judged
	// Registry runs fn beside a registry that has the bases and nothing else.
	Registry func(ctx context.Context, fn func(reg *rig.Registry) error) error
	Say      func(Contained)
}

// Load builds an image with a program as its executor, in the layout of our own
// image and by builder, our program; and gives it to the engine. The working directory is the top
// folder of the repository.
func (c *Containers) Load(ctx context.Context, builder, name, program string) (_ Tool, err error) {
	dir, err := os.MkdirTemp(c.Dir, "image-")
	if err != nil {
		return Tool{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	files := filepath.Join(dir, "context")
	for to, from := range map[string]string{"kaniko-build": program, "busybox": "/bin/busybox", "ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt"} {
		b, err := os.ReadFile(from)
		if err != nil {
			return Tool{}, err
		}
		if err := errors.Join(os.MkdirAll(files, 0o755), os.WriteFile(filepath.Join(files, to), b, 0o755)); err != nil {
			return Tool{}, err
		}
	}
	t := Tool{Name: name, Image: "kaniko-build/bench:" + name}
	archive := filepath.Join(dir, "image.tar")
	build := exec.CommandContext(ctx, builder, "build", "--progress", "plain", "-f", "images/executor/Dockerfile", "--target", "slim", "-t", t.Image,
		"--image-format", "docker", "-o", "type=docker,dest="+archive, files)
	build.Env = append(os.Environ(), "KANIKO_BUILD_STATE="+filepath.Join(dir, "state"))
	for _, cmd := range []*exec.Cmd{build, c.Docker.Command(ctx, "load", "--quiet", "--input", archive)} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return Tool{}, fmt.Errorf("make the image of %s: %w\n%s", name, err, out)
		}
	}
	return t, nil
}

// Contained is what was measured of one tool and workload.
type Contained struct {
	Workload string
	Tool     string
	Builds   []Build // cold, cold with a cache, warm with a cache
}

// Build is a build of all targets, one after the other.
type Build struct {
	Case   string
	Took   []time.Duration // of each round: containers' starts and ends are in it
	Memory rig.Memory      // the most of any container and round
	// Ratio is the median over rounds of our time over the peer's; 0 was not
	// measured. Limit is the most that it may be; 0 is none.
	Ratio, Limit float64
	Walks        Walks // of our last one
	// Within is whether it also ended well where a container had no more than so
	// much memory, in bytes; 0 was not tried.
	Within int64
	Failed error // of that
}

// Walks are the looks at all files of a root that commands were executed in.
type Walks struct {
	Stages   int           // that the Dockerfile has
	Commands int           // that were executed
	Walks    int           // one before the first command of a stage, and one after each
	Files    int           // that the last one looked at
	Took     time.Duration // the mean
}

// TooMany tells whether there were more than are needed.
func (w Walks) TooMany() bool { return w.Commands > 0 && w.Walks > w.Commands+w.Stages }

var (
	walkLine    = regexp.MustCompile(`msg="Looked at (\d+) files in (\S+)"`)
	commandLine = regexp.MustCompile(`msg="RUN `)
	fromLine    = regexp.MustCompile(`(?m)^FROM `)
)

// walks finds them in what our executor says at its level debug.
func walks(log []byte) (w Walks) {
	var all time.Duration
	for _, m := range walkLine.FindAllSubmatch(log, -1) {
		took, err := time.ParseDuration(string(m[2]))
		files, err2 := strconv.Atoi(string(m[1]))
		if err != nil || err2 != nil {
			continue
		}
		w.Walks, w.Files, all = w.Walks+1, files, all+took
	}
	if w.Walks > 0 {
		w.Took = all / time.Duration(w.Walks)
	}
	w.Commands = len(commandLine.FindAll(log, -1))
	return w
}

// Cases are the builds that are measured, in their order.
var cases = []struct {
	name   string
	repo   string // where images go, so that what another case pushed is of no use
	cached bool
}{{"cold", "cold", false}, {"cold, cache", "cached", true}, {"warm, cache", "cached", true}}

// Measure builds w in all cases.
func (c *Containers) Measure(ctx context.Context, w Workload) error {
	tools := []Tool{c.Ours}
	if c.Peer != nil {
		tools = append(tools, *c.Peer)
	}
	all := map[string][]Build{}
	for round := range c.Rounds {
		for i := range tools {
			tool := tools[(i+round)%len(tools)] // who begins has the colder machine
			builds := all[tool.Name]
			err := c.Registry(ctx, func(reg *rig.Registry) error {
				var err error
				builds, err = c.round(ctx, reg, tool, w, builds)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s by %s: %w", w.Name, tool.Name, err)
			}
			all[tool.Name] = builds
		}
	}
	ours := all[c.Ours.Name]
	if w.Within > 0 {
		ours[0].Within = w.Within
		err := c.Registry(ctx, func(reg *rig.Registry) error {
			ours[0].Failed = c.within(ctx, reg, w)
			return context.Cause(ctx)
		})
		if err != nil {
			return err
		}
	}
	if c.Peer != nil {
		for i := range ours {
			ours[i].Ratio, ours[i].Limit = ratio(ours[i].Took, all[c.Peer.Name][i].Took), w.Peer
		}
	}
	for _, tool := range tools {
		c.Say(Contained{Workload: w.Name, Tool: tool.Name, Builds: all[tool.Name]})
	}
	return nil
}

// round builds w once in each case and adds to what earlier rounds found.
func (c *Containers) round(ctx context.Context, reg *rig.Registry, tool Tool, w Workload, builds []Build) (_ []Build, err error) {
	p, err := c.prepare(w, reg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	for i, one := range cases {
		if c.Cold && one.cached {
			break
		}
		if len(builds) == i {
			builds = append(builds, Build{Case: one.name})
		}
		b := &builds[i]
		took, memory, w, err := p.build(ctx, tool, one.repo, one.cached, 0)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
		b.Took, b.Walks = append(b.Took, took), w
		b.Memory.Held, b.Memory.All = max(b.Memory.Held, memory.Held), max(b.Memory.All, memory.All)
	}
	return builds, nil
}

// within builds w where a container has little memory.
func (c *Containers) within(ctx context.Context, reg *rig.Registry, w Workload) (err error) {
	p, err := c.prepare(w, reg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	_, _, _, err = p.build(ctx, c.Ours, "within", false, w.Within)
	return err
}

// ratio is the median of the ratios of rounds.
func ratio(ours, peers []time.Duration) float64 {
	var all []time.Duration // in millionths
	for i := range ours {
		all = append(all, ours[i]*1e6/peers[i])
	}
	return float64(median(all)) / 1e6
}

// prepared is a workload on disk for one registry.
type prepared struct {
	*Containers
	dir     string
	reg     *rig.Registry
	name    string
	targets []target
	text    map[string]string // Dockerfiles as they were written
}

func (c *Containers) prepare(w Workload, reg *rig.Registry) (*prepared, error) {
	p := &prepared{Containers: c, dir: filepath.Join(c.Dir, w.Name), reg: reg, name: w.Name, text: map[string]string{}}
	if err := w.Write(p.dir, reg.Addr); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(p.dir, targetsFile))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &p.targets); err != nil {
		return nil, fmt.Errorf("read %s: %w", targetsFile, err)
	}
	for _, t := range p.targets {
		b, err := os.ReadFile(filepath.Join(p.dir, t.Dockerfile))
		if err != nil {
			return nil, err
		}
		p.text[t.Dockerfile] = string(b)
	}
	return p, nil
}

func (p *prepared) remove() error { return os.RemoveAll(p.dir) }

// image is where a target's image is pushed.
func (p *prepared) image(repo, target string) string {
	return fmt.Sprintf("%s/%s/%s-%s:latest", p.reg.Addr, repo, p.name, target)
}

// link makes Dockerfiles name the images of other targets: kaniko knows no named
// contexts.
func (p *prepared) link(repo string) error {
	for _, t := range p.targets {
		text := p.text[t.Dockerfile]
		for _, d := range t.Deps {
			text = strings.ReplaceAll(text, "\nFROM "+d+"\n", "\nFROM "+p.image(repo, d)+"\n")
		}
		if err := os.WriteFile(filepath.Join(p.dir, t.Dockerfile), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// build builds all targets. limit is the memory of a container; 0 is none.
func (p *prepared) build(ctx context.Context, tool Tool, repo string, cached bool, limit int64) (took time.Duration, most rig.Memory, last Walks, err error) {
	if err := p.link(repo); err != nil {
		return 0, most, last, err
	}
	for _, t := range p.targets {
		args := []string{
			"--context", "dir://" + path.Join("/workspace", t.Context), "--dockerfile", path.Join("/workspace", t.Dockerfile),
			"--registry-mirror", p.reg.Addr, "--destination", p.image(repo, t.Name),
		}
		if tool == p.Ours {
			args = append(args, "--verbosity", "debug", "--log-format", "text")
		}
		if cached {
			args = append(args, "--cache=true", "--cache-repo", p.reg.Addr+"/cache/"+p.name)
		}
		one, memory, log, err := p.run(ctx, rig.Container{
			Image: tool.Image, Args: args, Mounts: []rig.Mount{{Source: p.dir, Target: "/workspace", ReadOnly: true}}, Memory: limit,
		})
		if err != nil {
			return 0, most, last, fmt.Errorf("target %s: %w", t.Name, err)
		}
		took += one
		last = walks(log)
		last.Stages = len(fromLine.FindAllString(p.text[t.Dockerfile], -1))
		most.Held, most.All = max(most.Held, memory.Held), max(most.All, memory.All)
	}
	return took, most, last, nil
}

// run runs one container to its end. log is what it said.
func (p *prepared) run(ctx context.Context, box rig.Container) (took time.Duration, m rig.Memory, log []byte, err error) {
	id, err := p.Docker.Create(ctx, box)
	if err != nil {
		return 0, m, nil, err
	}
	defer func() { err = errors.Join(err, p.Docker.Remove(ctx, id)) }()
	cmd := p.Docker.Command(ctx, "start", "--attach", id)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	memory := p.Docker.WatchMemory(id)
	start := time.Now()
	err = cmd.Run()
	took = time.Since(start)
	m = memory()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return took, m, nil, fmt.Errorf("%w\n%s", err, strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
	return took, m, out.Bytes(), nil
}

// ContainedHeader stands above lines of Contained.
const ContainedHeader = "workload   tool        cold  cold, cache  warm, cache   memory held  with files  cold, warm of the peer's time"

// String is a line of a table, or two.
func (c Contained) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s %-7s", c.Workload, c.Tool)
	var m rig.Memory
	var ratios []string
	for i, one := range c.Builds {
		fmt.Fprintf(&b, " %*s", []int{8, 12, 12}[i], short(median(one.Took)))
		m.Held, m.All = max(m.Held, one.Memory.Held), max(m.All, one.Memory.All)
		if one.Ratio > 0 {
			ratios = append(ratios, fmt.Sprintf("%.2f", one.Ratio))
		}
	}
	fmt.Fprintf(&b, " %10d MB %8d MB", m.Held>>20, m.All>>20)
	if len(ratios) > 0 {
		word := "PASS"
		if c.Slow() {
			word = "over"
		}
		fmt.Fprintf(&b, "  %s; cold %.1f %s", strings.Join(ratios, ", "), c.Builds[0].Limit, word)
	}
	if w := c.Builds[0].Walks; w.Commands > 0 {
		word := "PASS"
		if w.TooMany() {
			word = "over"
		}
		fmt.Fprintf(&b, "\n%-10s %-7s %d walks for %d commands, each over %d files in %s %s", c.Workload, c.Tool, w.Walks, w.Commands, w.Files, w.Took.Round(100*time.Microsecond), word)
	}
	if took := c.Builds[0].Took; len(took) > 1 {
		fmt.Fprintf(&b, "\n%-10s %-7s cold, round by round:", c.Workload, c.Tool)
		for _, d := range took {
			fmt.Fprintf(&b, " %s", short(d))
		}
	}
	for _, one := range c.Builds {
		if one.Within > 0 {
			word := "PASS"
			if one.Failed != nil {
				word = "over: " + one.Failed.Error()
			}
			fmt.Fprintf(&b, "\n%-10s %-7s in a container of %d MB %s", c.Workload, c.Tool, one.Within>>20, word)
		}
	}
	return b.String()
}

// Slow tells whether the cold build's ratio is larger than it may be.
func (c Contained) Slow() bool { return c.Builds[0].Limit > 0 && c.Builds[0].Ratio > c.Builds[0].Limit }

// TooMuch tells whether a build failed where it had to be content with little memory.
func (c Contained) TooMuch() bool {
	return slices.ContainsFunc(c.Builds, func(b Build) bool { return b.Failed != nil })
}
