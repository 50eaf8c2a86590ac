package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// Options say how to watch. The zero value watches by inotify.
type Options struct {
	Poll     bool          // compare files, and ask nothing of the kernel
	Interval time.Duration // between two looks at polled files; 0 is two seconds
	// Note is told once each why files are polled, with the remedy. It is called from a
	// goroutine of the Watcher and does not block.
	Note func(text string)
	// Network names the file system of a directory that has to be polled; nil is
	// Network.
	Network func(dir string) string
}

const defaultInterval = 2 * time.Second

// Watcher watches one interest at a time. New makes it; Close ends it.
type Watcher struct {
	opts    Options
	sets    chan Set
	watch   chan request
	cancel  context.CancelFunc
	over    chan struct{}
	mu      sync.Mutex
	state   State
	noticed map[string]bool
}

// State is what a Watcher does at the moment.
type State struct {
	Dirs    int    `json:"dirs"`              // that are watched
	Polling string `json:"polling,omitempty"` // why files are polled; "" is none
}

type request struct {
	interest Interest
	done     chan struct{}
}

// New starts a watcher that is interested in nothing yet.
func New(o Options) *Watcher {
	if o.Interval <= 0 {
		o.Interval = defaultInterval
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	if o.Network == nil {
		o.Network = Network
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watcher{opts: o, sets: make(chan Set), watch: make(chan request), cancel: cancel, over: make(chan struct{}), noticed: map[string]bool{}}
	l := &loop{w: w, dirs: map[string]bool{}, mounts: mounts{fd: -1}}
	if !o.Poll {
		l.open()
		l.mounts = openMounts()
	}
	go l.run(ctx)
	return w
}

// Watch takes an interest instead of the one before. What changes after it
// returns is told.
func (w *Watcher) Watch(ctx context.Context, i Interest) error {
	r := request{i, make(chan struct{})}
	for _, step := range []func() bool{
		func() bool {
			select {
			case w.watch <- r:
				return true
			case <-ctx.Done():
			case <-w.over:
			}
			return false
		},
		func() bool {
			select {
			case <-r.done:
				return true
			case <-ctx.Done():
			case <-w.over:
			}
			return false
		},
	} {
		if !step() {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			return errors.New("the watcher is closed")
		}
	}
	return nil
}

// Sets are what changed, as soon as somebody takes it: what changes until then is
// in one set. It is never closed.
func (w *Watcher) Sets() <-chan Set { return w.sets }

// State is what the watcher does now.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Close ends the watcher. Nothing of it is left when it returns.
func (w *Watcher) Close() {
	w.cancel()
	<-w.over
}

func (w *Watcher) set(s State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
}

// note tells a sentence once.
func (w *Watcher) note(text string) {
	if !w.noticed[text] {
		w.noticed[text] = true
		w.opts.Note(text)
	}
}

// loop is the state of a watcher; only its goroutine touches it.
type loop struct {
	w        *Watcher
	interest Interest
	events   *fsnotify.Watcher // nil: everything is polled
	dirs     map[string]bool   // that have a watch
	mounts   mounts
	why      string   // everything is polled: the reason
	polled   Interest // what is polled beside the events, or all
	poller   poller
	polling  string // why something is polled
	pending  Set
}

func (l *loop) run(ctx context.Context) {
	defer close(l.w.over)
	defer l.shut()
	defer l.mounts.close()
	ticker := time.NewTicker(l.w.opts.Interval)
	defer ticker.Stop()
	for {
		var out chan Set
		if !l.pending.Empty() {
			out = l.w.sets
		}
		var events chan fsnotify.Event
		var errs chan error
		if l.events != nil {
			events, errs = l.events.Events, l.events.Errors
		}
		select {
		case <-ctx.Done():
			return
		case out <- l.pending:
			l.pending = Set{}
		case r := <-l.w.watch:
			l.take(r.interest)
			close(r.done)
		case e := <-events:
			l.event(e)
		case err := <-errs:
			if err != nil { // events were lost, or cannot be read: nothing is sure
				l.pending.Everything()
				l.again()
			}
		case <-ticker.C:
			if l.events != nil && l.mounts.changed(l.interest) { // watches are of what is hidden now
				l.pending.Everything()
				l.again()
			}
			if l.polling != "" {
				l.poller.look(&l.polled, &l.pending)
			}
		}
	}
}

// open asks the kernel for events; where that fails all is polled.
func (l *loop) open() {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		l.refused(err)
		return
	}
	l.events = events
}

func (l *loop) shut() {
	if l.events != nil {
		_ = l.events.Close() // nothing is left to lose
		l.events = nil
	}
	clear(l.dirs)
}

// again gives up all watches and begins anew.
func (l *loop) again() {
	l.shut()
	if l.why == "" && !l.w.opts.Poll {
		l.open()
	}
	l.take(l.interest)
}

// refused goes over to polling.
func (l *loop) refused(err error) {
	if len(l.dirs) > 0 {
		l.pending.Everything() // what they would have told
	}
	l.shut()
	switch {
	case errors.Is(err, unix.ENOSPC):
		l.why = "the kernel gives no more inotify watches: raise the limit with sysctl fs.inotify.max_user_watches=524288"
	case errors.Is(err, unix.EMFILE):
		l.why = "the kernel gives no more inotify instances: raise the limit with sysctl fs.inotify.max_user_instances=1024"
	default:
		l.why = fmt.Sprintf("the kernel does not tell of changes (%v)", err)
	}
	l.w.note("files are compared every " + l.w.opts.Interval.String() + ", as " + l.why)
}

// take watches what the interest is in, and forgets what it is not in.
func (l *loop) take(i Interest) {
	l.interest = i
	l.mounts.take(i)
	network := map[string]string{}
	if l.events != nil {
		l.add(network)
	}
	switch {
	case l.events == nil:
		if l.polled, l.polling = i, l.why; l.polling == "" {
			l.polling = "it was asked for"
		}
	case len(network) > 0:
		l.polled, l.polling = Interest{Enters: i.Enters}, ""
		for dir, name := range network {
			l.polled.Trees, l.polling = append(l.polled.Trees, dir), "of a network file system: "+name
			l.w.note(fmt.Sprintf("files in %s are compared every %s, as the kernel does not tell what others change on %s", dir, l.w.opts.Interval, name))
		}
		for _, f := range i.Files {
			if l.w.opts.Network(filepath.Dir(f)) != "" {
				l.polled.Files = append(l.polled.Files, f)
			}
		}
	default:
		l.polled, l.polling, l.poller = Interest{}, "", poller{}
	}
	if l.polling != "" { // what is there now is what later looks compare with
		seen := l.poller.seen
		l.poller = poller{}
		l.poller.look(&l.polled, &l.pending)
		for name, pr := range l.poller.seen { // what changed since the last look
			if old, ok := seen[name]; ok && old != pr {
				l.pending.Add(name, false)
			}
		}
	}
	l.w.set(State{Dirs: len(l.dirs), Polling: l.polling})
}

// add makes the watches of an interest exactly those that are there. Trees of
// network file systems are put into network and left out.
func (l *loop) add(network map[string]string) {
	want := map[string]bool{}
	for dir := range l.interest.singles() {
		want[dir] = true
		if !l.one(dir) {
			return
		}
	}
	for _, t := range l.interest.Trees {
		if name := l.w.opts.Network(t); name != "" {
			network[t] = name
			continue
		}
		if !l.tree(t, want) {
			return
		}
	}
	for dir := range l.dirs {
		if !want[dir] {
			l.drop(dir)
		}
	}
}

// tree watches a directory and what is in it, as far as the interest goes. It adds
// what is watched to want, and is false when the kernel refuses.
func (l *loop) tree(dir string, want map[string]bool) bool {
	if !l.one(dir) {
		return false
	}
	if want != nil {
		want[dir] = true
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return true // it is gone, or nobody can read it
	}
	for _, e := range list {
		name := filepath.Join(dir, e.Name())
		if e.IsDir() && l.interest.enters(name) && !l.tree(name, want) {
			return false
		}
	}
	return true
}

// one watches a directory itself.
func (l *loop) one(dir string) bool {
	if l.dirs[dir] {
		return true
	}
	err := l.events.Add(dir)
	switch {
	case err == nil:
		l.dirs[dir] = true
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.ENOMEM):
		l.refused(err)
		return false
	} // else it is not there, or not ours to read: what is above tells when that changes
	return true
}

func (l *loop) drop(dir string) {
	delete(l.dirs, dir)
	_ = l.events.Remove(dir) // it may be gone
}

// event takes one event of the kernel.
func (l *loop) event(e fsnotify.Event) {
	name := e.Name
	if name == "" {
		return
	}
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		below := l.dirs[name]
		for dir := range l.dirs { // before a new name of it is watched: a watch belongs to the directory
			if below && within(dir, name) {
				l.drop(dir)
			}
		}
		if l.relevant(name) || below {
			l.pending.Add(name, below)
		}
		l.w.set(State{Dirs: len(l.dirs), Polling: l.polling})
		return
	}
	if !l.relevant(name) {
		return
	}
	if !e.Has(fsnotify.Create) {
		l.pending.Add(name, false)
		return
	}
	fi, err := os.Lstat(name)
	if err != nil || !fi.IsDir() {
		l.pending.Add(name, false)
		return
	}
	// Watched first and told after: what comes into it later is told by itself.
	l.pending.Add(name, true)
	if !l.appeared(name) {
		l.take(l.interest)
	}
	l.w.set(State{Dirs: len(l.dirs), Polling: l.polling})
}

// appeared watches what there is to watch of a directory that is new. It is false
// when the kernel refuses.
func (l *loop) appeared(dir string) bool {
	for _, t := range l.interest.Trees {
		if within(dir, t) { // in a tree
			return !l.interest.enters(dir) || l.tree(dir, nil)
		}
	}
	for single := range l.interest.singles() { // above a tree or a file
		if within(single, dir) && !l.one(single) {
			return false
		}
	}
	for _, t := range l.interest.Trees {
		if within(t, dir) && !l.tree(t, nil) {
			return false
		}
	}
	return true
}

// relevant tells whether a path has to do with the interest. Directories that are
// watched for one file hold others.
func (l *loop) relevant(name string) bool {
	for _, f := range l.interest.Files {
		if within(f, name) {
			return true
		}
	}
	for _, t := range l.interest.Trees {
		if within(t, name) {
			return true
		}
		if within(name, t) && l.interest.enters(filepath.Dir(name)) {
			return true
		}
	}
	return false
}
