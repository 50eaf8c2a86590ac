// Bench measures the program: time and the largest process of ours, cold, with
// nothing to do, and after small changes, each beside its budget.
//
//	bench [-binary bin/kaniko-build] [-dir DIR] [-n RUNS] [WORKLOAD...]
//	bench -container [-peer EXECUTOR] [-cold] [-binary …] [-dir …] [-n ROUNDS] [WORKLOAD...]
//
// It starts a registry of its own on loopback, which has the bases and takes
// the images. Without -dir, root works on a file system made for it (rig.Disk), so
// that the host's does not count. The disk needs 10 GB for all workloads. It ends
// with 1 when a process uses more memory than it may; times depend on the machine.
//
// With -container it builds as pipelines do, in Docker's default container and by
// our executor image, with the cache off and on; and by turns with a peer, which is
// a program with kaniko's command line, in an image of the same layout. It is to be
// started in the top folder of the repository.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"kaniko-build/test/bench"
	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/port"
	"kaniko-build/test/rig"
)

func main() {
	binary := flag.String("binary", "bin/kaniko-build", "program to measure")
	dir := flag.String("dir", "", "folder for workloads and states (default: a temporary one; for root on a file system of its own)")
	write := flag.String("write", "", "only write the workloads below this folder, for -registry")
	registry := flag.String("registry", "127.0.0.1:5000", "registry that written workloads use")
	runs := flag.Int("n", 5, "each time is the median of as many; cold builds of big workloads run once, but for -container")
	inContainers := flag.Bool("container", false, "measure in Docker's default container")
	cold := flag.Bool("cold", false, "with -container: leave builds with a cache out")
	peer := flag.String("peer", "", "with -container: static program with kaniko's command line, to compare with")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: bench [flags] [WORKLOAD...]")
		flag.PrintDefaults()
		for _, w := range bench.All {
			fmt.Fprintf(flag.CommandLine.Output(), "  %-10s %s\n", w.Name, w.What)
		}
	}
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	var err error
	switch {
	case *write != "":
		err = writeOnly(*write, *registry, flag.Args())
	case *inContainers:
		err = withBases(ctx, *binary, *dir, flag.Args(), func(w work) error { return contained(ctx, w, *peer, *cold, max(*runs, 1)) })
	default:
		err = withBases(ctx, *binary, *dir, flag.Args(), func(w work) error { return alone(ctx, w, max(*runs, 1)) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// chosen picks workloads by name; none means all.
func chosen(names []string) ([]bench.Workload, error) {
	if len(names) == 0 {
		return bench.All, nil
	}
	var out []bench.Workload
	for _, n := range names {
		i := slices.IndexFunc(bench.All, func(w bench.Workload) bool { return w.Name == n })
		if i < 0 {
			return nil, fmt.Errorf("no workload is called %q", n)
		}
		out = append(out, bench.All[i])
	}
	return out, nil
}

func writeOnly(dir, registry string, names []string) error {
	list, err := chosen(names)
	if err != nil {
		return err
	}
	for _, w := range list {
		if err := w.Write(filepath.Join(dir, w.Name), registry); err != nil {
			return fmt.Errorf("write %s: %w", w.Name, err)
		}
	}
	return nil
}

// diskSize is that of the file system, in bytes; what is not used costs nothing.
const diskSize = 40 << 30

// work is what there is to measure.
type work struct {
	binary    string
	dir       string // for everything
	workloads []bench.Workload
	layouts   []string // their bases
}

func (w work) registry(ctx context.Context, fn func(reg *rig.Registry) error) error {
	return withRegistry(ctx, filepath.Join(w.dir, "registry"), w.layouts, fn)
}

// withBases runs fn when the bases of the named workloads are there.
func withBases(ctx context.Context, binary, dir string, names []string, fn func(work) error) (err error) {
	list, err := chosen(names)
	if err != nil {
		return err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "kaniko-build-bench-"); err != nil {
			return err
		}
		temporary := dir
		defer func() { err = errors.Join(err, os.RemoveAll(temporary)) }()
		if os.Geteuid() == 0 {
			disk, stop, err2 := rig.Disk(dir, diskSize)
			if err2 != nil {
				return err2
			}
			defer func() { err = errors.Join(err, stop()) }()
			dir = disk
		}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	var needs []string
	for _, w := range list {
		for _, n := range w.Needs {
			if !slices.Contains(needs, n) {
				needs = append(needs, n)
			}
		}
	}
	cache, err := mirror.Cache()
	if err != nil {
		return err
	}
	layouts, err := mirror.Make(ctx, cache, needs, os.Stderr)
	if err != nil {
		return err
	}
	return fn(work{binary, dir, list, layouts})
}

// alone measures the program itself.
func alone(ctx context.Context, w work, runs int) error {
	slow, tooMuch := 0, 0
	b := bench.Bench{
		Binary: w.binary, Dir: w.dir, Runs: runs, Registry: w.registry,
		Say: func(s bench.Sample) {
			fmt.Println(s)
			if s.Slow() {
				slow++
			}
			if s.TooMuch() {
				tooMuch++
			}
		},
	}
	fmt.Println(bench.Header)
	for _, one := range w.workloads {
		if err := b.Measure(ctx, one); err != nil {
			return err
		}
	}
	fmt.Printf("\n%d times and %d processes are over their budgets, which are for an idle machine with two CPUs\n", slow, tooMuch)
	if tooMuch > 0 {
		return errors.New("a process used more memory than it may")
	}
	return nil
}

// contained measures the executor image.
func contained(ctx context.Context, w work, peer string, cold bool, rounds int) (err error) {
	engine, err := os.MkdirTemp(w.dir, "docker-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(engine)) }()
	docker, stop, err := rig.RunDocker(engine, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	c := bench.Containers{Docker: docker, Dir: w.dir, Rounds: rounds, Cold: cold, Registry: w.registry}
	if c.Ours, err = c.Load(ctx, w.binary, "ours", w.binary); err != nil {
		return err
	}
	if peer != "" {
		other, err := c.Load(ctx, w.binary, "peer", peer)
		if err != nil {
			return err
		}
		c.Peer = &other
	}
	slow, tooMuch := 0, 0
	c.Say = func(s bench.Contained) {
		fmt.Println(s)
		if s.Slow() {
			slow++
		}
		if s.TooMuch() || s.Builds[0].Walks.TooMany() {
			tooMuch++
		}
	}
	fmt.Printf("Docker's default container, memory of cgroups, medians of %d\n%s\n", rounds, bench.ContainedHeader)
	for _, one := range w.workloads {
		if one.Peer == 0 {
			continue
		}
		if err := c.Measure(ctx, one); err != nil {
			return err
		}
	}
	fmt.Printf("\n%d ratios and %d containers are over what they may be\n", slow, tooMuch)
	if slow+tooMuch > 0 {
		return errors.New("a container took more time or memory than it may")
	}
	return nil
}

// withRegistry runs fn beside a registry that has the bases and nothing else.
func withRegistry(ctx context.Context, dir string, layouts []string, fn func(reg *rig.Registry) error) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	held, err := port.Hold()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	addr := held.Addr.String()
	conf := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(conf, []byte(rig.RegistryConfig(addr, filepath.Join(dir, "data"))), 0o644); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, "docker-registry", "serve", conf)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start docker-registry (Debian's package of that name): %w", err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	defer func() { cmd.Process.Kill(); <-done }()
	if err := rig.WaitRegistry(addr, done); err != nil {
		return err
	}
	for _, layout := range layouts {
		if _, err := image.Push(ctx, layout, addr); err != nil {
			return err
		}
	}
	return fn(&rig.Registry{Addr: addr, Log: log.Name()})
}
