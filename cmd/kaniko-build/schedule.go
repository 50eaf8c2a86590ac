package main

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
)

// What is taken for granted of a node that nothing is remembered of.
const (
	unknownMemory = 256 << 20 // bytes
	unknownTime   = time.Second
)

// schedule says in what order the nodes of a run start, and how many at once. Where
// nothing is to be executed no more than that is found out.
func (r *run) schedule(g *graph.Graph) graph.Options {
	o := graph.Options{Jobs: 2*r.x.Jobs() + 2, KeepGoing: r.keep}
	outlooks := map[graph.ID]executor.Outlook{}
	for id, n := range r.nodes {
		if r.only != nil && !r.only[id] {
			continue
		}
		if l := r.x.Outlook(n); l.Runs {
			outlooks[graph.ID(id)] = l
		}
	}
	if len(outlooks) == 0 {
		return o
	}
	o.Cost = func(id graph.ID) float64 {
		l := outlooks[id]
		if l.Runs && l.Took == 0 {
			l.Took = unknownTime
		}
		return l.Took.Seconds()
	}
	weight := func(id graph.ID) int64 {
		l := outlooks[id]
		switch {
		case !l.Runs:
			return 0
		case r.nodes[string(id)].Resources.Memory > 0:
			return r.nodes[string(id)].Resources.Memory
		case l.Memory > 0:
			return l.Memory
		}
		return unknownMemory
	}
	if o.Capacity = int64(r.flags.memory); o.Capacity == 0 && !r.flags.afar() {
		o.Capacity = machineMemory()
	}
	if o.Capacity > 0 { // else a cluster has room, or lets pods wait for it
		o.Weight = weight
	}
	for id, way := range g.Remaining(o.Cost) {
		if n := r.nodes[string(id)]; n != nil {
			n.Priority = way
		}
	}
	return o
}

// critical is the longest way through a plan: by the time that nodes took, if that is
// remembered of any, else by their number.
func (w *workspace) critical(p *plan.Plan) ([]graph.ID, error) {
	state, err := stateDir()
	if err != nil {
		return nil, err
	}
	requests, err := w.requests(p)
	if err != nil {
		return nil, err
	}
	paces := executor.Paces(state, requests)
	if len(paces) == 0 {
		return p.Graph().CriticalPath(nil), nil
	}
	mean := time.Duration(0) // for those that nothing is remembered of
	for _, pace := range paces {
		mean += pace.Took / time.Duration(len(paces))
	}
	return p.Graph().CriticalPath(func(id graph.ID) float64 {
		if p.Node(id).Index != nil {
			return 0
		}
		if pace, ok := paces[string(id)]; ok {
			return pace.Took.Seconds()
		}
		return mean.Seconds()
	}), nil
}

// machineMemory is what this machine has, or what the cgroups that this process is in
// may have; 0 if that cannot be told.
func machineMemory() int64 {
	least := int64(0)
	take := func(text string, unit int64) {
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err == nil && n > 0 && n < 1<<62/unit && (least == 0 || n*unit < least) {
			least = n * unit
		}
	}
	b, _ := os.ReadFile("/proc/meminfo") // without it there is no limit
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			take(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 1<<10)
		}
	}
	b, _ = os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		root, file := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		switch f[1] {
		case "":
			root, file = "/sys/fs/cgroup", "memory.max"
		case "memory":
		default:
			continue
		}
		for dir := path.Clean("/" + f[2]); ; dir = path.Dir(dir) {
			text, _ := os.ReadFile(path.Join(root, dir, file)) // of the parents some are not ours to see
			take(string(text), 1)
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// sizeFlag is a flag of a number of bytes.
type sizeFlag int64

func (s *sizeFlag) Set(text string) error {
	n, err := parseSize(text)
	if err == nil && n <= 0 {
		err = errors.New("write a size above zero, such as 8GB or 8GiB")
	}
	*s = sizeFlag(n)
	return err
}

func (s *sizeFlag) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*s), 10)
}

func (s *sizeFlag) Type() string { return "SIZE" }
