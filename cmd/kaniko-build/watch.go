package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
	"kaniko-build/watch"
	"kaniko-build/watch/notify"
)

// watchFlags are those of apply that make sense for long, and how to watch.
type watchFlags struct {
	applyFlags
	trigger                   string
	debounce, maxWait, period time.Duration
	onChange                  string
	load                      bool
	loadTo                    string
	bell                      bool
	target                    string // that is run
	serve                     string
}

func newWatch(t terminal) *cobra.Command {
	f := &watchFlags{}
	c := &cobra.Command{
		Use:   "watch [flags] [TARGET...] [-- ARG...]",
		Short: "Build the images of the manifest, and again what a saved file changes",
		Long: `Build the images of the manifest, and then, whenever a file is saved that one of them is
made of, that image and what stands on it, until it is interrupted.

What is watched is what the builds read: Dockerfiles, ignore files, what COPY, ADD and bind mounts
select or look for in vain, named contexts, inputs of hooks, the manifest and what it includes.
A file that is written but holds what it held builds nothing. A mistake in any of them is
shown and waited out.

With --run the image of a target is run in a container of ours, on the network of this machine, and
killed and started anew whenever it was built; what it writes is dropped.

Keys, on a terminal: r builds everything again, f shows one image that runs by itself, with its log, p pauses, q ends. With trigger manual Enter, or the
signal SIGHUP, looks for changes. With --progress json every line is an event; those of kind
"watch" tell what the watching itself does.

--serve 127.0.0.1:7070 shows the graph as it is built, the state of each image, its log and the last
builds in browsers of this machine, at the address that is printed. Only who knows that is answered.`,
		Example: "  kaniko-build watch\n  kaniko-build watch api --on-change queue --debounce 1s\n  kaniko-build watch --run api -- serve --port 8080\n  kaniko-build watch --serve 127.0.0.1:7070",
		RunE:    func(c *cobra.Command, args []string) error { return f.run(c, t, args) },
	}
	f.manifestFlags.add(c)
	f.runFlags.add(c)
	fl := c.Flags()
	fl.StringVar(&f.trigger, "trigger", "", "what starts a build: notify (the kernel tells of changes), poll (files are compared) or manual (default notify)")
	complete(c, "trigger", "notify", "poll", "manual")
	fl.DurationVar(&f.debounce, "debounce", 0, "how long it must be quiet after a change (default 300ms)")
	fl.DurationVar(&f.maxWait, "max-wait", 0, "how long a change waits at most for quiet (default 10s)")
	fl.DurationVar(&f.period, "poll-interval", 0, "time between two looks at files that are compared (default 2s)")
	fl.StringVar(&f.onChange, "on-change", "", "what a change does while images are built: restart those it concerns, queue it, or ignore it until another comes (default restart)")
	complete(c, "on-change", "restart", "queue", "ignore")
	fl.BoolVar(&f.load, "load", false, "give each image that was built to Docker, podman or containerd, the first that answers")
	fl.StringVar(&f.loadTo, "load-to", "", "--load to docker, podman, containerd or k8s.io")
	complete(c, "load-to", "docker", "podman", "containerd", "k8s.io")
	fl.StringVar(&f.target, "run", "", "run the image of a target, with the arguments after --, and start it anew with each new image")
	fl.BoolVar(&f.bell, "bell", false, "ring the terminal's bell when something failed")
	fl.StringVar(&f.serve, "serve", "", "show all in browsers too, at this address of this machine; port 0 is any")
	return c
}

// options are those of the manifest, where no flag says otherwise.
func (f *watchFlags) options(m schema.Watch) (watch.Options, error) {
	pick := func(flag, manifest string) string {
		if flag != "" {
			return flag
		}
		return manifest
	}
	for flag, d := range map[string]time.Duration{"debounce": f.debounce, "max-wait": f.maxWait, "poll-interval": f.period} {
		if d < 0 {
			return watch.Options{}, usageError{fmt.Errorf("--%s %s: write a time above zero, such as 300ms", flag, d)}
		}
	}
	longest := func(flag, manifest time.Duration) time.Duration {
		if flag > 0 {
			return flag
		}
		return manifest
	}
	o := watch.Options{
		Quiet: longest(f.debounce, m.Debounce), Cap: longest(f.maxWait, m.MaxWait),
		Notify: notify.Options{Interval: longest(f.period, m.PollInterval)},
	}
	switch trigger := pick(f.trigger, m.Trigger); trigger {
	case "", "notify":
	case "poll":
		o.Notify.Poll = true
	case "manual":
		o.Manual = true
	default:
		return o, usageError{fmt.Errorf("no trigger %q: choose notify, poll or manual", trigger)}
	}
	switch o.OnChange = watch.OnChange(pick(f.onChange, m.OnChange)); o.OnChange {
	case "", watch.Restart, watch.Queue, watch.Ignore:
	default:
		return o, usageError{fmt.Errorf("--on-change %q: choose restart, queue or ignore", o.OnChange)}
	}
	return o, nil
}

func (f *watchFlags) run(c *cobra.Command, t terminal, selection []string) (err error) {
	ctx := c.Context()
	o, err := f.options(f.early(ctx))
	if err != nil {
		return err
	}
	if _, err := f.find(); err != nil { // there is nothing to wait for
		return err
	}
	var to *engine
	var args []string
	if f.load || f.loadTo != "" {
		e, err := findEngine(ctx, f.loadTo)
		if err != nil {
			return err
		}
		to = &e
	}
	s := &stage{ctx: ctx, flags: f, term: t}
	if at := c.ArgsLenAtDash(); at >= 0 {
		if f.target == "" {
			return usageError{errors.New("arguments after -- are for the target that --run names")}
		}
		selection, args = selection[:at], selection[at:]
	}
	if f.target != "" {
		s.service = &service{target: f.target, args: args, stage: s}
	}
	if f.serve != "" {
		var leave func() error
		if leave, err = s.browse(f.serve, &o); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, leave()) }()
	}
	shop := &workshop{f: f, c: c, stage: s, selection: selection, engine: to, how: o}
	defer func() { err = errors.Join(err, shop.close(ctx), s.close()) }()
	o.Sink = s.watched
	e := watch.New(shop, o)
	stop, err := s.listen(e, o.Manual)
	if err != nil {
		return err
	}
	defer stop()
	if err := e.Run(s.ctx); !errors.Is(err, errQuit) {
		return err
	}
	return nil
}

// errQuit ends watching as asked for.
var errQuit = errors.New("quit")

// early is what the manifest says of watching when it begins; a manifest that cannot be
// read says nothing, and is told of later.
func (f *watchFlags) early(ctx context.Context) schema.Watch {
	w, err := f.read(ctx)
	if err != nil {
		return schema.Watch{}
	}
	return w.manifest.Watch
}

// lasting tells of settings of a manifest that was changed which hold from the next start on.
func (w *workshop) lasting(m schema.Watch) {
	now, err := w.f.options(m)
	if err != nil { // of a flag: it was refused at the start
		return
	}
	var names []string
	for _, s := range []struct {
		name string
		same bool
	}{
		{"trigger", now.Manual == w.how.Manual && now.Notify.Poll == w.how.Notify.Poll},
		{"debounce", now.Quiet == w.how.Quiet}, {"maxWait", now.Cap == w.how.Cap},
		{"pollInterval", now.Notify.Interval == w.how.Notify.Interval}, {"onChange", now.OnChange == w.how.OnChange},
	} {
		if !s.same {
			names = append(names, s.name)
		}
	}
	list := strings.Join(names, ", ")
	if list != w.elsewise && list != "" {
		w.stage.warn("watch: " + list + " of the manifest is another than at the start: it holds when watch is started anew")
	}
	w.elsewise = list
}

// executorFor is the executor for a manifest that was read. It is kept as long as what
// it was opened with stays the same.
func (w *workshop) executorFor(ctx context.Context, registries []executor.Registry) (*executor.Executor, error) {
	pods := w.f.cluster.Runner
	pods.Pos = diag.Pos{}
	made := fmt.Sprintf("%v %q %q %d %d %q %q %+v", registries, w.f.snapshotMode, w.f.ignorePaths, w.f.retries, w.f.jobs, w.f.runner, w.f.image, pods)
	if n := len(w.opened); n > 0 && made == w.made {
		return w.opened[n-1], nil
	}
	x, err := w.f.open(ctx, w.stage.executed, registries, nil)
	if err != nil {
		return nil, err
	}
	w.opened, w.made = append(w.opened, x), made
	return x, nil
}

// close ends the executors.
func (w *workshop) close(ctx context.Context) error {
	w.stage.service.end()
	var err error
	for _, x := range w.opened {
		err = errors.Join(err, x.Close(ctx))
	}
	return err
}
