package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/cmd/kaniko-build/internal/files"
	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/graph"
)

// metadata is what a metadata file says of one target. The keys with dots are bake's;
// docs/metadata.md describes all. They are part of what we promise: new ones may come,
// none goes away or changes its meaning.
type metadata struct {
	Status     string               `json:"status"` // built, cached, skipped, failed, cancelled or not started
	Cause      string               `json:"cause,omitempty"`
	Error      string               `json:"error,omitempty"`
	Config     string               `json:"containerimage.config.digest,omitempty"`
	Manifest   *ocispec.Descriptor  `json:"containerimage.descriptor,omitempty"`
	Digest     string               `json:"containerimage.digest,omitempty"`
	Names      string               `json:"image.name,omitempty"` // commas between them
	Provenance json.RawMessage      `json:"buildx.build.provenance,omitempty"`
	Input      string               `json:"inputDigest,omitempty"`
	Steps      int                  `json:"steps,omitempty"`
	Executed   int                  `json:"executed,omitempty"`
	Durations  *durations           `json:"durations,omitempty"`
	Bases      []base               `json:"bases,omitempty"`
	Platforms  map[string]*metadata `json:"platforms,omitempty"` // of an index
}

// base is an image that a target reads.
type base struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// durations is how long the parts of a target took, in seconds.
type durations struct {
	Total float64        `json:"total"`
	Build float64        `json:"build"`
	Write float64        `json:"write,omitempty"` // outputs
	Push  float64        `json:"push,omitempty"`
	Hooks float64        `json:"hooks,omitempty"` // after the build
	Steps []stepDuration `json:"steps,omitempty"` // that were executed, as they ended
}

type stepDuration struct {
	Stage   string  `json:"stage,omitempty"`
	Step    int     `json:"step"`
	Text    string  `json:"text"`
	Seconds float64 `json:"seconds"`
}

// stopwatch notes how long steps take, as one of the views of a run.
type stopwatch struct {
	mu    sync.Mutex
	steps map[string][]stepDuration // by node
}

func (s *stopwatch) Event(e progress.Event) {
	if e.Kind != executor.StepDone {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.steps == nil {
		s.steps = map[string][]stepDuration{}
	}
	s.steps[e.Node] = append(s.steps[e.Node], stepDuration{e.Stage, e.Step, e.Text, e.Elapsed.Seconds()})
}

func (s *stopwatch) Close() error { return nil }

// lap adds the time since t to a part of a node's durations.
func (r *run) lap(id string, part func(*durations) *float64, t time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.durations[id]
	if d == nil {
		if d = (&durations{}); r.durations == nil {
			r.durations = map[string]*durations{}
		}
		r.durations[id] = d
	}
	*part(d) += time.Since(t).Seconds()
}

// writeMetadata writes what became of each target, whole or not at all.
func (r *run) writeMetadata(out graph.Outcome) error {
	all := map[string]*metadata{}
	for _, o := range out {
		all[string(o.ID)] = r.metadata(o)
	}
	for id, j := range r.joins {
		m := all[id]
		if m == nil { // watch tells of what a change built
			continue
		}
		m.Platforms = map[string]*metadata{}
		for _, part := range j.nodes {
			if all[part] == nil {
				continue
			}
			all[part].Names = "" // those of the index
			m.Platforms[r.nodes[part].Platform] = all[part]
			delete(all, part)
		}
	}
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("encode metadata: %w", err)
	}
	return files.Whole(r.flags.metadata, func(w io.Writer) error {
		_, err := w.Write(append(b, '\n'))
		return err
	})
}

// metadata is what became of one node.
func (r *run) metadata(o graph.Result) *metadata {
	id := string(o.ID)
	m := &metadata{Cause: string(o.Cause), Input: r.inputs.digests[id]}
	res, ok := r.results[id]
	switch {
	case r.idle[id]:
		m.Status, m.Cause = "skipped", r.why(r.plan.Node(o.ID))
		if f := r.found[id]; f != nil {
			m.Digest, m.Names = f.Digest().String(), strings.Join(f.Names, ",")
		}
	case o.State == graph.Failed:
		m.Status, m.Error = "failed", r.errs[id].Error()
	case ok && res.Cached:
		m.Status = "cached"
	case ok:
		m.Status = "built"
	default:
		m.Status = string(o.State)
	}
	if ok {
		m.Names, m.Digest, m.Manifest = strings.Join(res.Names, ","), res.Manifest.Digest.String(), &res.Manifest
		if res.Config.Digest != "" {
			m.Config = res.Config.Digest.String()
		}
		m.Steps, m.Executed = res.Steps, res.Executed
		if n := r.nodes[id]; n != nil {
			m.Provenance = n.Provenance()
			for _, b := range n.Bases {
				m.Bases = append(m.Bases, base{b.Name, b.Digest.String()})
			}
		}
	}
	if m.Durations = r.durations[id]; m.Durations != nil {
		m.Durations.Steps = r.flags.stopwatch.steps[id]
	}
	return m
}
