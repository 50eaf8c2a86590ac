package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/registry"
	"kaniko-build/executor/internal/store"
)

// DefaultTTL is how old an entry may be when nobody says: kaniko's two weeks.
const DefaultTTL = 14 * 24 * time.Hour

// findTimeout bounds one look-up: what takes longer is not worth waiting for.
const findTimeout = 10 * time.Second

// Options say what a Cache is made of.
type Options struct {
	Scheme string           // salts keys; entries of another one do not count
	Repo   string           // where entries are written, and looked up first: HOST/PATH without a tag, or oci:PATH
	From   []string         // further places, which are only read
	TTL    time.Duration    // older entries do not count; 0 is DefaultTTL
	Now    func() time.Time // nil is time.Now
}

// Cache is entries in one or more places. Its methods may be called from several
// goroutines.
type Cache struct {
	o      Options
	places []place // the first is written to
}

// place is where entries lie under tags. What is not there is
// image.ErrNotFound; all else that is wrong is an error to show.
type place interface {
	// find reads an entry without its blob, having seen that this is there.
	find(ctx context.Context, tag string) (image.Resolved, error)
	put(ctx context.Context, tag string, a image.Assembled, src image.Source, origins map[digest.Digest][]string) error
	// origin is where a blob of the entry is read from: a reference, or oci-layout://DIR.
	origin(tag string) string
	// useless tells of an error that other entries would meet, too.
	useless(err error) bool
}

// New makes a cache of the places that o names. None of them is asked yet; a name
// that cannot be one is a *diag.Problem.
func New(reg *registry.Client, o Options) (*Cache, error) {
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Cache{o: o}
	for _, name := range append([]string{o.Repo}, o.From...) {
		p, err := newPlace(reg, name)
		if err != nil {
			return nil, err
		}
		c.places = append(c.places, &guarded{place: p})
	}
	return c, nil
}

// Hit is an entry and where its blob can be had.
type Hit struct {
	Entry
	Origin string // a reference, or oci-layout://DIR
}

// Find asks the places in order for an entry of k: with full for one that was
// made with a full range of ids, else for any, full ones first. What was not found
// is a *Miss, of those that were met the one with a reason. Another error is
// ctx's.
func (c *Cache) Find(ctx context.Context, k store.Key, full bool) (Hit, error) {
	kinds := []bool{true, false}
	if full {
		kinds = kinds[:1]
	}
	told := &Miss{}
	for _, p := range c.places {
		for _, full := range kinds {
			hit, err := c.findIn(ctx, p, k, full)
			if err == nil {
				return hit, nil
			}
			var m *Miss
			if !errors.As(err, &m) {
				return Hit{}, err
			}
			if m.Reason != "" && told.Reason == "" {
				told = m
			}
		}
	}
	return Hit{}, told
}

func (c *Cache) findIn(ctx context.Context, p place, k store.Key, full bool) (Hit, error) {
	tag := tag(k, full)
	fail := func(err error) (Hit, error) { return Hit{}, missed(ctx, p.origin(tag), err) }
	r, err := p.find(ctx, tag)
	if err != nil {
		return fail(err)
	}
	e, err := read(r, c.o.Scheme, k, full)
	if err != nil {
		return fail(err)
	}
	if age := c.o.Now().Sub(e.Created); age > c.o.TTL {
		return fail(fmt.Errorf("it is %s old, and %s are allowed", age.Round(time.Second), c.o.TTL))
	}
	return Hit{Entry: e, Origin: p.origin(tag)}, nil
}

// Put writes an entry to the first place. Its blob comes from src unless the
// place has it or, at a registry, can mount it from one of the repositories in
// from ("HOST/PATH").
func (c *Cache) Put(ctx context.Context, e Entry, src image.Source, from []string) error {
	a, err := e.assemble(c.o.Scheme)
	if err != nil {
		return err
	}
	small := memory{a.Config.Digest: a.RawConfig, a.Manifest.Digest: a.RawManifest}
	return c.places[0].put(ctx, tag(e.Key, e.Full), a, image.First(small, src), map[digest.Digest][]string{e.Blob.Digest: from})
}

// guarded gives up a place that is of no use: asking it once more for every step
// would only take time. All who ask hear of the same entry, so that one line
// tells it.
type guarded struct {
	place
	mu   sync.Mutex
	gone error // why it is not asked any more
}

func (g *guarded) find(ctx context.Context, tag string) (image.Resolved, error) {
	if err := g.given(); err != nil {
		return image.Resolved{}, err
	}
	limited, cancel := context.WithTimeoutCause(ctx, findTimeout, errSlow)
	defer cancel()
	r, err := g.place.find(limited, tag)
	if g.judge(ctx, tag, err) {
		err = g.given()
	}
	return r, err
}

var errSlow = fmt.Errorf("it does not answer within %s", findTimeout)

func (g *guarded) put(ctx context.Context, tag string, a image.Assembled, src image.Source, origins map[digest.Digest][]string) error {
	if err := g.given(); err != nil {
		return err
	}
	err := g.place.put(ctx, tag, a, src, origins)
	g.judge(ctx, tag, err)
	return err
}

func (g *guarded) given() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gone
}

// judge tells whether err, met at tag, gives the place up.
func (g *guarded) judge(ctx context.Context, tag string, err error) bool {
	if err == nil || ctx.Err() != nil || !errors.Is(err, errSlow) && !g.useless(err) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone == nil {
		g.gone = missed(ctx, g.origin(tag), err)
	}
	return true
}
