// Mirror stands in for a hub: it puts base images that it makes from Debian's
// packages and the installed Go into a registry on loopback, below library/.
//
//	mirror [-addr 127.0.0.1:5000] [-cache DIR] [-stop] [NAME...]
//
// When nothing answers at the address it starts Debian's docker-registry there,
// with its data below the cache folder, and leaves it running; -stop ends it.
// What was made before is taken from the cache.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:5000", "where the registry is, or will be")
	cache := flag.String("cache", "", "folder for what was made (default: below the user's cache folder)")
	stop := flag.Bool("stop", false, "end the registry that an earlier call started")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	names := flag.Args()
	if len(names) == 0 {
		names = mirror.All
	}
	if err := run(ctx, *addr, *cache, *stop, names); err != nil {
		fmt.Fprintln(os.Stderr, "mirror:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr, cache string, stop bool, names []string) error {
	if cache == "" {
		var err error
		if cache, err = mirror.Cache(); err != nil {
			return err
		}
	}
	home := filepath.Join(cache, "registry-"+strings.ReplaceAll(addr, ":", "-"))
	if stop {
		return end(home)
	}
	layouts, err := mirror.Make(ctx, cache, names, os.Stderr)
	if err != nil {
		return err
	}
	if err := serve(ctx, addr, home); err != nil {
		return err
	}
	for _, l := range layouts {
		refs, err := image.Push(ctx, l, addr)
		if err != nil {
			return err
		}
		fmt.Println(strings.Join(refs, "\n"))
	}
	return nil
}

// serve starts a registry unless one is there.
func serve(ctx context.Context, addr, home string) error {
	var d net.Dialer
	if c, err := d.DialContext(ctx, "tcp", addr); err == nil {
		c.Close()
		return rig.WaitRegistry(addr, nil)
	}
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		return fmt.Errorf("find docker-registry (Debian's package of that name): %w", err)
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	conf := filepath.Join(home, "config.yml")
	if err := os.WriteFile(conf, []byte(rig.RegistryConfig(addr, filepath.Join(home, "data"))), 0o644); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(home, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(bin, "serve", conf) // outlives us, so not bound to ctx
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	if err := rig.WaitRegistry(addr, done); err != nil {
		return fmt.Errorf("start docker-registry, see %s: %w", log.Name(), err)
	}
	fmt.Fprintf(os.Stderr, "docker-registry runs at %s (process %d); `make mirror-stop` ends it\n", addr, cmd.Process.Pid)
	return os.WriteFile(filepath.Join(home, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

// end kills the registry that serve started.
func end(home string) error {
	file := filepath.Join(home, "pid")
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	// The process may have ended, and its number be another's by now.
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err == nil && strings.Contains(string(line), "docker-registry") {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			return err
		}
	}
	return os.Remove(file)
}
