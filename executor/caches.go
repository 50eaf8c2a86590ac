package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"kaniko-build/executor/internal/cache"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
)

const (
	findJobs = 16 // look-ups at once
	keepJobs = 4  // uploads at once
)

// The end of a run waits for uploads to caches as long as they get on, and not
// longer than uploadGrace.
const (
	uploadGrace = 30 * time.Second
	uploadStall = 3 * time.Second
)

// caches is what an Executor knows of the caches outside of its nodes.
type caches struct {
	background context.Context // of uploads, which outlive the build of their node; it ends with that of Open, or at Close
	stop       context.CancelCauseFunc
	uploads    sync.WaitGroup
	slots      chan struct{}
	moved      atomic.Int64 // when an upload last read something or ended, as time.Duration since start
	start      time.Time

	mu      sync.Mutex
	open    map[string]*cache.Cache    // by what Request.Cache says
	found   map[digest.Digest]cachedAt // blob -> where a cache has it
	spoiled map[digest.Digest]bool     // blobs that turned out to be of no use
	warned  map[string]bool            // caches that a warning was written about
}

func newCaches(ctx context.Context) *caches {
	ctx, stop := context.WithCancelCause(ctx)
	return &caches{
		background: ctx, stop: stop, slots: make(chan struct{}, keepJobs), start: time.Now(),
		open: map[string]*cache.Cache{}, found: map[digest.Digest]cachedAt{}, spoiled: map[digest.Digest]bool{},
		warned: map[string]bool{},
	}
}

// cachedAt says where a cache has a blob.
type cachedAt struct {
	origin string
	size   int64 // of its tar
}

// origin is where a cache has a blob, "" if none does.
func (c *caches) origin(blob digest.Digest) string { return c.get(blob).origin }

func (c *caches) get(blob digest.Digest) cachedAt {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.found[blob]
}

// CacheRepo is the repository that a cache has when nobody names one: that of
// the image, with /cache, as with kaniko.
func CacheRepo(name string) (string, error) {
	n, err := image.ParseName(name)
	if err != nil {
		return "", err
	}
	return n.Context() + "/cache", nil
}

// cacheOf is the cache of a node, nil if it has none.
func (x *Executor) cacheOf(n *Node) (*cache.Cache, error) {
	if n.Cache == nil {
		return nil, nil
	}
	o := cache.Options{Scheme: keyScheme, Repo: n.Cache.Repo, From: n.Cache.From, TTL: n.Cache.TTL}
	if o.Repo == "" {
		if len(n.Names) == 0 {
			return nil, &diag.Problem{What: "the cache has no repository, and the image has no name to make one of", Hint: "name one: REGISTRY/PATH or oci:PATH"}
		}
		var err error
		if o.Repo, err = CacheRepo(n.Names[0]); err != nil {
			return nil, err
		}
	}
	x.caches.mu.Lock()
	defer x.caches.mu.Unlock()
	id := fmt.Sprintf("%q %q %d", o.Repo, o.From, o.TTL)
	if c := x.caches.open[id]; c != nil {
		return c, nil
	}
	c, err := cache.New(x.registry, o)
	if err != nil {
		return nil, err
	}
	x.caches.open[id] = c
	return c, nil
}

// asks tells whether the results of a step are looked up and kept in a cache.
func (c *Cache) asks(s *dockerfile.Step) bool {
	switch {
	case c == nil:
		return false
	case s.Copy != nil:
		return c.Copy
	}
	return c.Run && (s.Run != nil || s.Workdir != nil)
}

// findAhead asks the caches of nodes for all steps whose result is needed and not
// in the store, side by side and each key once, before anything runs. What is
// needed is found from the end: all steps of the stages that a target stands on
// and, for a step that is not known, of those that it reads from.
func (x *Executor) findAhead(ctx context.Context, nodes []*Node) error {
	nodes = slices.DeleteFunc(slices.Clone(nodes), func(n *Node) bool { return n.Cache == nil })
	if len(nodes) == 0 {
		return nil
	}
	for _, n := range nodes {
		if _, err := x.cacheOf(n); err != nil {
			return err
		}
		n.markForCache()
	}
	next := map[*Node][]int{} // stages to look at
	seen := map[*Node]map[int]bool{}
	need := func(n *Node, i int) {
		if !seen[n][i] {
			seen[n][i] = true
			next[n] = append(next[n], i)
		}
	}
	for _, n := range nodes {
		seen[n] = map[int]bool{}
		need(n, len(n.job.Stages)-1)
	}
	for len(next) > 0 {
		round := next
		next = map[*Node][]int{}
		for n, stages := range round {
			for k := 0; k < len(stages); k++ {
				if b := n.job.Stages[stages[k]].Base.Stage; b >= 0 && !seen[n][b] {
					seen[n][b] = true
					stages = append(stages, b)
				}
			}
			round[n] = stages
		}
		if err := x.findRound(ctx, round); err != nil {
			return err
		}
		for n, stages := range round {
			for _, i := range stages {
				for k := range n.job.Stages[i].Steps {
					s := &n.job.Stages[i].Steps[k]
					if len(s.Lines) == 0 || x.here(s) || s.Outside != nil {
						continue
					}
					for _, src := range stepSources(&s.Step) {
						if src.Kind == dockerfile.FromStage {
							need(n, src.Stage)
						}
					}
				}
			}
		}
	}
	return nil
}

// markForCache sets which steps the cache of the node is for.
func (n *Node) markForCache() {
	for i := range n.job.Stages {
		for k := range n.job.Stages[i].Steps {
			s := &n.job.Stages[i].Steps[k]
			if len(s.Lines) > 0 && n.Cache.asks(&s.Step) {
				s.Ask, s.Keep = !s.Fresh, n.Cache.Write
			}
		}
	}
}

// here tells whether the store knows what a step makes and has its layer, which
// it may not when the result was found outside and nobody read it.
func (x *Executor) here(s *jobStep) bool {
	if s.Fresh || s.ByContent {
		return false
	}
	e, err := x.store.GetKey(s.Key, x.full())
	if err != nil {
		return false
	}
	if len(x.store.Variants(e.DiffID)) > 0 {
		return true
	}
	iso, err := x.isolation()
	if err != nil {
		return false
	}
	_, err = os.Lstat(x.store.LayerDir(iso.IDs.String(), e.Layer))
	return err == nil
}

// findRound looks up the steps of some stages.
func (x *Executor) findRound(ctx context.Context, stages map[*Node][]int) error {
	type question struct {
		cache *cache.Cache
		key   store.Key
	}
	asked := map[question][]*jobStep{}
	askedBy := map[question]*Node{}
	for n, list := range stages {
		c, err := x.cacheOf(n)
		if err != nil {
			return err
		}
		for _, i := range list {
			for k := range n.job.Stages[i].Steps {
				s := &n.job.Stages[i].Steps[k]
				if s.Ask && !s.Asked && !s.ByContent && !x.here(s) {
					q := question{c, s.Key}
					asked[q] = append(asked[q], s)
					askedBy[q] = n
				}
			}
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(findJobs)
	for _, q := range slices.Collect(maps.Keys(asked)) {
		g.Go(func() error {
			o, missed := x.findCached(ctx, askedBy[q], q.key)
			for _, s := range asked[q] {
				s.Outside, s.Missed, s.Asked = o, missed, true
			}
			return context.Cause(ctx)
		})
	}
	return g.Wait()
}

// findCached asks the cache of a node for a key. Without a result, missed says
// why an entry that is there cannot be used.
func (x *Executor) findCached(ctx context.Context, n *Node, k store.Key) (_ *outsideLayer, missed string) {
	c, err := x.cacheOf(n)
	if c == nil || err != nil {
		return nil, ""
	}
	hit, err := c.Find(ctx, k, x.full())
	if ctx.Err() != nil {
		return nil, ""
	}
	if err == nil && x.isSpoiled(hit.Blob.Digest) {
		return nil, "its layer was found to be of no use"
	}
	if err != nil {
		if !errors.Is(err, image.ErrNotFound) {
			x.missed(n.ID, err.Error())
			return nil, err.Error()
		}
		return nil, ""
	}
	x.caches.mu.Lock()
	x.caches.found[hit.Blob.Digest] = cachedAt{hit.Origin, hit.Size}
	x.caches.mu.Unlock()
	return &outsideLayer{
		Entry:  store.Entry{DiffID: hit.DiffID, Layer: hit.DiffID.Encoded(), Size: hit.Size, Created: hit.Created, Full: hit.Full},
		Layer:  baseLayer{DiffID: hit.DiffID, Blob: hit.Blob, Origin: hit.Origin, Cached: true, Size: hit.Size},
		Params: hit.Params,
	}, ""
}

// missed tells of a miss that has a reason. A cache that is of no use at all is
// told of once.
func (x *Executor) missed(node, why string) {
	x.caches.mu.Lock()
	told := x.caches.warned["miss "+why]
	x.caches.warned["miss "+why] = true
	x.caches.mu.Unlock()
	if !told {
		x.opts.Sink(Event{Node: node, Kind: CacheMiss, Time: time.Now(), Text: why})
	}
}

// cached is what a cache has for a step, unless it turned out to be of no use.
func (x *Executor) cached(s *jobStep) *outsideLayer {
	if s.Outside == nil || x.isSpoiled(s.Outside.Layer.Blob.Digest) {
		return nil
	}
	return s.Outside
}

// cachedFrom is the cache that has the result of a step, "" if it is the store.
func (x *Executor) cachedFrom(s *jobStep) string {
	if o := x.cached(s); o != nil && !x.here(s) {
		return o.Layer.Origin
	}
	return ""
}

func (x *Executor) isSpoiled(blob digest.Digest) bool {
	x.caches.mu.Lock()
	defer x.caches.mu.Unlock()
	return x.caches.spoiled[blob]
}

// unspoiled is stages without what caches turned out not to have.
func (x *Executor) unspoiled(stages []jobStage) []jobStage {
	out := slices.Clone(stages)
	for i := range out {
		out[i].Steps = slices.Clone(out[i].Steps)
		for k := range out[i].Steps {
			out[i].Steps[k].Outside = x.cached(&out[i].Steps[k])
		}
	}
	return out
}

// withoutSpoiled does something with a node, and once more whenever a cached
// layer turns out to be of no use: the step that made it is run then. Parents
// that stand on that layer have been built again before.
func (x *Executor) withoutSpoiled(ctx context.Context, n *Node, do func() error) error {
	tried := map[digest.Digest]bool{}
	for {
		err := do()
		var spoiled *spoiledError
		if !errors.As(err, &spoiled) || tried[spoiled.Blob] {
			return err
		}
		tried[spoiled.Blob] = true
		x.caches.mu.Lock()
		from := x.caches.found[spoiled.Blob].origin
		delete(x.caches.found, spoiled.Blob)
		x.caches.spoiled[spoiled.Blob] = true
		x.caches.mu.Unlock()
		if from != "" { // else another node has told
			x.missed(n.ID, fmt.Sprintf("the cache entry %s cannot be used: %v", from, spoiled.Err))
		}
		for _, p := range n.parents {
			if p.standsOn(spoiled.Blob) {
				if _, err := x.Build(ctx, p); err != nil {
					return err
				}
			}
		}
	}
}

// rebuilt is withoutSpoiled for what is done with a built image, which is built
// again before the next try.
func (x *Executor) rebuilt(ctx context.Context, n *Node, do func() error) error {
	first := true
	return x.withoutSpoiled(ctx, n, func() error {
		if !first {
			if _, err := x.Build(ctx, n); err != nil {
				return err
			}
		}
		first = false
		return do()
	})
}

// standsOn tells whether the image of a node, as it was built, has a blob.
func (n *Node) standsOn(blob digest.Digest) bool {
	return slices.ContainsFunc(n.built(), func(l builtLayer) bool { return l.Descriptor.Digest == blob })
}

// keepCached uploads what a step made to the cache of its node, beside what goes
// on.
func (x *Executor) keepCached(n *Node, l keptLayer) error {
	c, err := x.cacheOf(n)
	if c == nil || err != nil || !n.Cache.Write {
		return err
	}
	step := n.step(l.Key)
	if step == nil {
		return fmt.Errorf("internal error: no step of %s has key %s", n.ID, l.Key)
	}
	e := cache.Entry{
		Key: l.Key, Lines: step.Lines, DiffID: l.Entry.DiffID, Size: l.Entry.Size, Created: l.Entry.Created, Full: l.Entry.Full,
		Blob: l.Blob, Params: l.Params, Text: step.CreatedBy, Platform: n.program.Platform,
	}
	e.Platform = platforms.Normalize(e.Platform)
	from := n.repositories()
	if o := x.caches.origin(l.Blob.Digest); o != "" && !strings.HasPrefix(o, layoutScheme) {
		if name, err := image.ParseName(o); err == nil {
			from = append(from, name.Context())
		}
	}
	src := watched{image.First(image.FromStore(x.store), keptBlob{x, l}), x.caches}
	x.caches.uploads.Go(func() {
		ctx := x.caches.background
		select {
		case x.caches.slots <- struct{}{}:
			defer func() { <-x.caches.slots }()
		case <-ctx.Done():
		}
		defer x.caches.move()
		err := c.Put(ctx, e, src, from)
		if err == nil && len(l.Lines) > 0 {
			e.Key, e.Lines = l.ByContent, l.Lines
			err = c.Put(ctx, e, src, from)
		}
		switch {
		case err == nil && ctx.Err() == nil:
		case errors.Is(context.Cause(ctx), errSlow), errors.Is(context.Cause(ctx), errStalled):
			x.warnCache(n.ID, "not all results are in the cache: "+context.Cause(ctx).Error())
		case ctx.Err() == nil:
			x.warnCache(n.ID, "results are not kept in the cache: "+err.Error())
		}
	})
	return nil
}

// The causes when uploads are given up at the end of a run.
var (
	errSlow    = fmt.Errorf("the uploads took more than %s longer than the build", uploadGrace)
	errStalled = fmt.Errorf("it took nothing for %s", uploadStall)
)

// watched is a source of uploads of which it is known when something was last
// read.
type watched struct {
	image.Source
	caches *caches
}

// Open is image.Source's.
func (w watched) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	r, err := w.Source.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	w.caches.move()
	return watchedReader{r, w.caches}, nil
}

type watchedReader struct {
	io.ReadCloser
	caches *caches
}

func (r watchedReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.caches.move()
	return n, err
}

func (c *caches) move() { c.moved.Store(int64(time.Since(c.start))) }

// step is the step with a key by definition.
func (n *Node) step(k store.Key) *jobStep {
	for i := range n.job.Stages {
		for j := range n.job.Stages[i].Steps {
			if s := &n.job.Stages[i].Steps[j]; s.Key == k && len(s.Lines) > 0 {
				return s
			}
		}
	}
	return nil
}

// repositories are those of the names of a node.
func (n *Node) repositories() []string {
	var out []string
	for _, name := range n.Names {
		if p, err := image.ParseName(name); err == nil && !slices.Contains(out, p.Context()) {
			out = append(out, p.Context())
		}
	}
	return out
}

// keptBlob reads the blob of a kept layer that is not in the store.
type keptBlob struct {
	x *Executor
	l keptLayer
}

func (b keptBlob) Open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	origin := b.x.caches.origin(d.Digest)
	if d.Digest != b.l.Blob.Digest || origin == "" {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, image.ErrNotFound)
	}
	return b.x.streamBlob(ctx, baseLayer{DiffID: b.l.Entry.DiffID, Blob: b.l.Blob, Origin: origin})
}

// warnCache warns once of uploads that fail.
func (x *Executor) warnCache(node, text string) {
	x.caches.mu.Lock()
	told := x.caches.warned["write"]
	x.caches.warned["write"] = true
	x.caches.mu.Unlock()
	if !told {
		x.opts.Sink(Event{Node: node, Kind: Warning, Time: time.Now(), Text: text})
	}
}

// finishCaches waits for uploads while they get on, for a bounded time and not when
// ctx has ended.
func (x *Executor) finishCaches(ctx context.Context) {
	done := make(chan struct{})
	go func() { x.caches.uploads.Wait(); close(done) }()
	x.caches.move()
	end := time.NewTimer(uploadGrace)
	defer end.Stop()
	stall := time.NewTimer(uploadStall)
	defer stall.Stop()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-ctx.Done():
			waiting = false
		case <-end.C:
			x.caches.stop(errSlow)
			waiting = false
		case <-stall.C:
			left := uploadStall - (time.Since(x.caches.start) - time.Duration(x.caches.moved.Load()))
			if waiting = left > 0; waiting {
				stall.Reset(left)
			} else {
				x.caches.stop(errStalled)
			}
		}
	}
	x.caches.stop(context.Canceled)
	<-done
}
