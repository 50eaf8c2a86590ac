package prune

import (
	"slices"
	"strings"
	"testing"
	"time"

	"kaniko-build/executor/internal/store"
)

var now = time.Unix(1_000_000_000, 0)

// thing is one that was last used some hours ago.
func thing(k store.Kind, name string, hours int, bytes int64, refs ...string) store.Thing {
	return store.Thing{Kind: k, Name: name, Path: name, Bytes: bytes, Used: now.Add(-time.Duration(hours) * time.Hour), Refs: refs}
}

// stock is a store: an image and a key over one blob, a key that has only its
// unpacked layer, two cache mounts.
func stock() []store.Thing {
	return []store.Thing{
		thing(store.KindBlob, "manifest", 900, 1),
		thing(store.KindBlob, "layer-blob", 900, 100),
		thing(store.KindBlob, "old-blob", 800, 200),
		thing(store.KindImage, "image", 500, 1, "manifest", "layer-blob"),
		thing(store.KindKey, "key", 10, 1, "variant"),
		thing(store.KindVariant, "variant", 600, 1, "layer-blob"),
		thing(store.KindKey, "old-key", 700, 1, "old-variant"),
		thing(store.KindVariant, "old-variant", 700, 1, "old-blob"),
		thing(store.KindKey, "stage-key", 20, 1, "stage-layer"),
		thing(store.KindLayer, "stage-layer", 900, 50),
		thing(store.KindLayer, "layer", 400, 70),
		thing(store.KindCache, "small", 30, 10),
		thing(store.KindCache, "large", 3, 1000),
		thing(store.KindTemp, "session", 0, 5),
	}
}

func TestChoose(t *testing.T) {
	never := now.Add(time.Hour)
	for _, c := range []struct {
		name  string
		p     Policy
		held  int // hours ago; 0 is nobody
		goes  string
		extra []store.Thing
	}{
		{name: "no rule", p: Policy{}},
		{name: "what leads to nothing", p: Policy{}, goes: "lost-key lost-base", extra: []store.Thing{
			thing(store.KindKey, "lost-key", 1, 1, "none"), thing(store.KindBase, "lost-base", 1, 1, "none", "layer-blob"),
			thing(store.KindBase, "base", 1, 1, "manifest", "none"),
		}},
		{name: "age, by the use of what needs it", p: Policy{KeepFor: 336 * time.Hour}, goes: "image old-key old-variant manifest old-blob layer"},
		{name: "age of some kinds: the image keeps its blobs", p: Policy{KeepFor: 336 * time.Hour, Kinds: []store.Kind{store.KindBlob}}, goes: "old-key old-variant old-blob"},
		{name: "everything", p: Policy{All: true}, goes: "image key old-key stage-key variant old-variant manifest layer-blob old-blob stage-layer layer small large"},
		{name: "everything but what is used", p: Policy{All: true}, held: 25, goes: "image old-key old-variant manifest old-blob layer small"},
		{name: "all layers: a key that had nothing else goes too", p: Policy{All: true, Kinds: []store.Kind{store.KindLayer}}, goes: "stage-key stage-layer layer"},
		{name: "the longest unused first", p: Policy{MaxSize: 1300}, goes: "old-key old-variant old-blob"},
		{name: "until it fits", p: Policy{MaxSize: 1110}, goes: "image old-key old-variant manifest old-blob layer small stage-key stage-layer"},
		{name: "cache mounts together", p: Policy{MaxCaches: 1005}, goes: "small"},
		{name: "each cache mount", p: Policy{MaxEachCache: 500}, goes: "large"},
		{name: "a cache mount that is used", p: Policy{MaxEachCache: 500, MaxCaches: 5}, held: 4, goes: "small"},
	} {
		t.Run(c.name, func(t *testing.T) {
			held := never
			if c.held > 0 {
				held = now.Add(-time.Duration(c.held) * time.Hour)
			}
			var goes []string
			list := Choose(append(stock(), c.extra...), held, now, c.p)
			for _, v := range list {
				if v.Goes {
					goes = append(goes, v.Name)
				}
				if v.Why == "" {
					t.Errorf("%s: nobody says why", v.Name)
				}
			}
			want := strings.Fields(c.goes)
			slices.Sort(want)
			slices.Sort(goes)
			if !slices.Equal(goes, want) {
				t.Errorf("goes %q\nwant %q", goes, want)
			}
		})
	}
}

// What refers to a thing goes before it: a prune that is killed leaves nothing
// that leads to nowhere.
func TestChooseOrdersReferrersFirst(t *testing.T) {
	at := map[string]int{}
	list := Choose(stock(), now.Add(time.Hour), now, Policy{All: true})
	for i, v := range list {
		at[v.Path] = i
	}
	for i, v := range list {
		for _, ref := range v.Refs {
			if at[ref] < i {
				t.Errorf("%s goes after %s, to which it refers", v.Name, ref)
			}
		}
	}
	if by := list[at["layer-blob"]].By; !slices.Equal(by, []string{"images image", "variants variant"}) {
		t.Errorf("layer-blob is referred to by %q", by)
	}
}
