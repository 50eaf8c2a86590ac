package prune

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"kaniko-build/executor/internal/store"
)

// Policy says what is to go. A thing goes when one of the rules says so; without
// rules nothing does but what leads to nothing.
type Policy struct {
	KeepFor      time.Duration // what was not used for so long goes; 0 is no rule
	MaxSize      int64         // bytes of the whole store: what was used longest ago goes first; 0 is no rule
	MaxCaches    int64         // bytes of all cache mounts together, in the same way
	MaxEachCache int64         // bytes of one cache mount: a larger one goes
	All          bool          // everything
	Kinds        []store.Kind  // only these; none is all
}

// Verdict is what becomes of a thing.
type Verdict struct {
	store.Thing
	Last time.Time // when it, or something that needs it, was used
	By   []string  // what refers to it, as "kind name", sorted
	Goes bool
	Held bool   // a process that runs has used it, or a named image that stays needs it
	Why  string // a clause
}

// Choose decides about all things; what was used since held stays. The verdicts
// come in the order in which the things may go, the last used last within a kind.
func Choose(things []store.Thing, held, now time.Time, p Policy) []Verdict {
	c := &chooser{policy: p, now: now, at: map[string]*Verdict{}, needs: map[string][]*Verdict{}}
	c.list = make([]Verdict, len(things))
	for i, t := range things {
		c.list[i] = Verdict{Thing: t, Last: t.Used}
		c.at[t.Path] = &c.list[i]
	}
	for i := range c.list {
		v := &c.list[i]
		for _, ref := range v.Refs {
			if to := c.at[ref]; to != nil {
				c.needs[ref] = append(c.needs[ref], v)
				to.By = append(to.By, string(v.Kind)+" "+v.Name)
			}
		}
	}
	order := make([]*Verdict, len(c.list))
	for i := range c.list {
		order[i] = &c.list[i]
	}
	// What refers to something stands before it, so that one pass hands the
	// last use down.
	slices.SortStableFunc(order, func(a, b *Verdict) int {
		return cmp.Compare(slices.Index(store.Kinds, a.Kind), slices.Index(store.Kinds, b.Kind))
	})
	for _, v := range order {
		for _, ref := range v.Refs {
			if to := c.at[ref]; to != nil && v.Last.After(to.Last) {
				to.Last = v.Last
			}
		}
	}
	// The longest unused first, and of equals what refers before what it refers to.
	slices.SortStableFunc(order, func(a, b *Verdict) int { return a.Last.Compare(b.Last) })
	for _, v := range order {
		slices.Sort(v.By)
		v.Held = v.Kind == store.KindTemp || !v.Last.Before(held)
		switch {
		case v.Kind == store.KindTemp:
			v.Why = "temporary files of processes that run"
		case v.Held:
			v.Why = "used by a process that runs"
		}
	}
	for _, v := range order {
		c.byRule(v)
	}
	c.bySize(order, p.MaxCaches, "the cache mounts", func(v *Verdict) bool { return v.Kind == store.KindCache })
	c.bySize(order, p.MaxSize, "the store", func(*Verdict) bool { return true })
	c.dangling(order)
	for _, v := range order {
		if img := c.image(v); !v.Goes && v.Why == "" && img != "" {
			v.Held, v.Why = true, "part of the image "+img
		}
		if !v.Goes && v.Why == "" {
			v.Why = c.stays(v)
		}
	}
	out := make([]Verdict, len(order))
	for i, v := range order {
		out[i] = *v
	}
	slices.SortStableFunc(out, func(a, b Verdict) int {
		return cmp.Compare(slices.Index(store.Kinds, a.Kind), slices.Index(store.Kinds, b.Kind))
	})
	return out
}

type chooser struct {
	policy Policy
	now    time.Time
	list   []Verdict
	at     map[string]*Verdict   // by path
	needs  map[string][]*Verdict // what refers to the thing at a path
}

func (c *chooser) chosen(v *Verdict) bool {
	return len(c.policy.Kinds) == 0 || slices.Contains(c.policy.Kinds, v.Kind)
}

// may tells whether a rule may take the thing.
func (c *chooser) may(v *Verdict) bool {
	return !v.Goes && !v.Held && c.chosen(v) && c.image(v) == ""
}

// image is the name of a staying image that needs the thing.
func (c *chooser) image(v *Verdict) string {
	for _, by := range c.needs[v.Path] {
		if by.Kind == store.KindImage && !by.Goes {
			return by.Name
		}
	}
	return ""
}

func (c *chooser) byRule(v *Verdict) {
	if !c.may(v) {
		return
	}
	p := c.policy
	switch {
	case p.All:
		v.Goes, v.Why = true, "everything goes"
	case p.KeepFor > 0 && v.Last.Before(c.now.Add(-p.KeepFor)):
		v.Goes, v.Why = true, "not used for "+short(p.KeepFor)
	case v.Kind == store.KindCache && p.MaxEachCache > 0 && v.Bytes > p.MaxEachCache:
		v.Goes, v.Why = true, "larger than a cache mount may be"
	}
}

// bySize takes things until those that are left fit.
func (c *chooser) bySize(order []*Verdict, limit int64, what string, counts func(*Verdict) bool) {
	if limit <= 0 {
		return
	}
	var total int64
	for _, v := range order {
		if !v.Goes && counts(v) {
			total += max(0, v.Bytes)
		}
	}
	for _, v := range order {
		if total <= limit {
			return
		}
		if counts(v) && c.may(v) {
			v.Goes, v.Why = true, "least recently used, and "+what+" must shrink"
			total -= max(0, v.Bytes)
		}
	}
}

// dangling takes what leads to nothing that is there: it would be a miss for
// whoever finds it.
func (c *chooser) dangling(order []*Verdict) {
	for again := true; again; {
		again = false
		for _, v := range order {
			if v.Goes || v.Held || len(v.Refs) == 0 {
				continue
			}
			left, ours := 0, false
			for _, ref := range v.Refs {
				to := c.at[ref]
				if to != nil && !to.Goes {
					left++
				} else if ref == v.Refs[0] && whole(v.Kind) {
					left = -len(v.Refs) // without its manifest an image is nothing
				}
				ours = ours || to != nil && to.Goes
			}
			if left <= 0 && (ours || c.chosen(v)) {
				v.Goes, v.Why, again = true, "leads to nothing that is there", true
			}
		}
	}
}

// whole tells whether the first of a thing's references is needed, not any.
func whole(k store.Kind) bool { return k == store.KindImage || k == store.KindBase }

func (c *chooser) stays(v *Verdict) string {
	p := c.policy
	switch {
	case !c.chosen(v):
		return "of a kind that was not chosen"
	case p.KeepFor > 0:
		return "used in the last " + short(p.KeepFor)
	case p.MaxSize > 0:
		return "fits"
	}
	return "no rule takes it"
}

// short is a duration without the zeros of its String.
func short(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
