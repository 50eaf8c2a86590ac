package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Times in this span stand for "when the build ran". Corpus cases never use a
// fixed time inside it, so a golden need only say "now".
const (
	nowFrom = 1767225600 // 2026-01-01
	nowTo   = 2051222400 // 2035-01-01
)

// Stamp is a time in whole seconds, or "now", or "unset".
type Stamp string

func stampUnix(s int64) Stamp {
	if s >= nowFrom && s < nowTo {
		return "now"
	}
	return Stamp(strconv.FormatInt(s, 10))
}

// Entry is one path of the flattened root file system.
type Entry struct {
	Path   string            `json:"path"`
	Type   string            `json:"type"`
	Mode   string            `json:"mode"`
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	Size   int64             `json:"size,omitempty"`
	SHA256 string            `json:"sha256,omitempty"`
	Text   string            `json:"text,omitempty"` // the content, if it is short text
	Target string            `json:"target,omitempty"`
	Device string            `json:"device,omitempty"`
	Links  []string          `json:"links,omitempty"`  // every name of a hard-linked file
	Xattrs map[string]string `json:"xattrs,omitempty"` // values in hex
	MTime  Stamp             `json:"mtime"`
}

// Health is the health check of an image configuration (times in ns).
type Health struct {
	Test          []string `json:",omitempty"`
	Interval      int64    `json:",omitempty"`
	Timeout       int64    `json:",omitempty"`
	StartPeriod   int64    `json:",omitempty"`
	StartInterval int64    `json:",omitempty"`
	Retries       int      `json:",omitempty"`
}

// Config holds what a container runtime reads.
type Config struct {
	Env          []string
	Entrypoint   []string
	Cmd          []string
	ArgsEscaped  bool
	WorkingDir   string
	User         string
	ExposedPorts map[string]struct{}
	Volumes      map[string]struct{}
	Labels       map[string]string
	StopSignal   string
	Healthcheck  *Health
	Shell        []string
	OnBuild      []string
}

// Layer describes one layer above the base.
type Layer struct {
	MediaType string   `json:"media_type"`
	Entries   []string `json:"entries"` // "/" after directories; "-/p" whiteout; "-/d/*" opaque
}

// Step is one history record.
type Step struct {
	CreatedBy  string `json:"created_by,omitempty"`
	Comment    string `json:"comment,omitempty"`
	Created    Stamp  `json:"created,omitempty"`
	EmptyLayer bool   `json:"empty_layer,omitempty"`
}

// Dump is the canonical description of an image.
type Dump struct {
	Platform    string   `json:"platform"`
	Created     Stamp    `json:"created,omitempty"`
	Author      string   `json:"author,omitempty"`
	MediaType   string   `json:"media_type"`
	Config      Config   `json:"config"`
	History     []Step   `json:"history"`
	BaseDiffIDs []string `json:"base_diff_ids,omitempty"`
	Layers      []Layer  `json:"layers"`
	// FS is the whole root file system or, when BaseDiffIDs is set, only the
	// paths that differ from the file system those layers make.
	FS       []Entry  `json:"fs"`
	Removed  []string `json:"removed,omitempty"` // paths of the base that are gone
	Problems []string `json:"problems,omitempty"`

	DiffIDs []string `json:"-"` // of every layer, base first

	baseFS map[string]Entry // file system of the base layers
	fullFS map[string]Entry
}

type rawConfig struct {
	Architecture string     `json:"architecture"`
	OS           string     `json:"os"`
	Variant      string     `json:"variant"`
	OSVersion    string     `json:"os.version"`
	Created      *time.Time `json:"created"`
	Author       string     `json:"author"`
	Config       Config     `json:"config"`
	RootFS       struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []struct {
		Created    *time.Time `json:"created"`
		CreatedBy  string     `json:"created_by"`
		Comment    string     `json:"comment"`
		EmptyLayer bool       `json:"empty_layer"`
	} `json:"history"`
}

func stampTime(t *time.Time) Stamp {
	if t == nil || t.IsZero() {
		return ""
	}
	return stampUnix(t.Unix())
}

// Describe reads img. known lists the diff ID chains of base images: the
// longest that the image starts with is left out of Layers and FS. If
// baseLayers >= 0 that many leading layers are the base instead.
func Describe(img *Opened, known [][]string, baseLayers int) (*Dump, error) {
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	var cfg rawConfig
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	mt, err := img.MediaType()
	if err != nil {
		return nil, err
	}
	d := &Dump{
		Platform:  path.Join(cfg.OS, cfg.Architecture, cfg.Variant),
		Created:   stampTime(cfg.Created),
		Author:    cfg.Author,
		MediaType: string(mt),
		Config:    cfg.Config,
		Layers:    []Layer{},
		FS:        []Entry{},
		History:   []Step{},
		DiffIDs:   cfg.RootFS.DiffIDs,
	}
	layered := 0
	for _, h := range cfg.History {
		// For layers without history BuildKit makes up a text that tells from
		// which of several equal layers its cache took them.
		if h.Comment == "buildkit.exporter.image.v0" {
			h.CreatedBy = ""
		}
		d.History = append(d.History, Step{h.CreatedBy, h.Comment, stampTime(h.Created), h.EmptyLayer})
		if !h.EmptyLayer {
			layered++
		}
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	if len(layers) != len(cfg.RootFS.DiffIDs) {
		d.Problems = append(d.Problems, fmt.Sprintf("%d layers but %d diff_ids", len(layers), len(cfg.RootFS.DiffIDs)))
	}
	if len(cfg.History) > 0 && layered != len(layers) {
		d.Problems = append(d.Problems, fmt.Sprintf("%d layers but %d history records without empty_layer", len(layers), layered))
	}
	if baseLayers < 0 {
		baseLayers = longest(known, cfg.RootFS.DiffIDs)
	}
	baseLayers = min(baseLayers, len(layers))
	t := newTree()
	for i, l := range layers {
		if i == baseLayers && i > 0 {
			d.baseFS = t.entries()
		}
		li, err := readLayer(t, l, i)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		if i < len(cfg.RootFS.DiffIDs) && cfg.RootFS.DiffIDs[i] != li.diffID {
			d.Problems = append(d.Problems, fmt.Sprintf("layer %d: diff_id does not match its content", i))
		}
		if i < baseLayers {
			d.BaseDiffIDs = append(d.BaseDiffIDs, li.diffID)
			continue
		}
		for _, p := range li.problems {
			d.Problems = append(d.Problems, fmt.Sprintf("layer %d: %s", i, p))
		}
		names := []string{}
		for _, e := range li.entries {
			names = append(names, printable(e))
		}
		d.Layers = append(d.Layers, Layer{li.media, names})
	}
	d.fullFS = t.entries()
	if baseLayers > 0 && baseLayers == len(layers) {
		d.baseFS = d.fullFS
	}
	for _, p := range sortedKeys(d.fullFS) {
		e := d.fullFS[p]
		if b, ok := d.baseFS[p]; ok && reflect.DeepEqual(b, e) {
			continue
		}
		d.FS = append(d.FS, e)
	}
	for _, p := range sortedKeys(d.baseFS) {
		if _, ok := d.fullFS[p]; !ok {
			d.Removed = append(d.Removed, p)
		}
	}
	return d, nil
}

// longest tells how many leading ids form one of the known chains.
func longest(known [][]string, ids []string) int {
	best := 0
	for _, k := range known {
		if len(k) > best && len(k) <= len(ids) && reflect.DeepEqual(k, ids[:len(k)]) {
			best = len(k)
		}
	}
	return best
}

// Chains lists the diff ID chains of all images in an OCI layout directory.
func Chains(layoutDir string) ([][]string, error) {
	refs, err := LayoutRefs(layoutDir)
	if err != nil {
		return nil, err
	}
	var out [][]string
	for _, r := range refs {
		for _, p := range []string{"linux/amd64", "linux/arm64"} {
			img, err := Open(layoutDir+"#"+r, p)
			if err != nil {
				continue
			}
			cf, err := img.ConfigFile()
			img.Close()
			if err != nil {
				return nil, err
			}
			var ids []string
			for _, h := range cf.RootFS.DiffIDs {
				ids = append(ids, h.String())
			}
			out = append(out, ids)
		}
	}
	return out, nil
}

func sortedKeys[V any](m map[string]V) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	sort.Strings(ks)
	return ks
}

// entries lists the tree, with the names of every hard-linked file gathered.
func (t *tree) entries() map[string]Entry {
	names := map[*inode][]string{}
	nodes := map[string]*inode{}
	var walk func(p string, n *inode)
	walk = func(p string, n *inode) {
		nodes[p] = n
		if n.typ != "dir" {
			names[n] = append(names[n], p)
		}
		for k, c := range n.kids {
			walk(path.Join(p, k), c)
		}
	}
	walk("/", t.root)
	out := map[string]Entry{}
	for p, n := range nodes {
		if p == "/" && !n.hasTime {
			continue // no layer describes the root
		}
		e := Entry{
			Path: printable(p), Type: n.typ, Mode: fmt.Sprintf("%04o", n.mode), UID: n.uid, GID: n.gid,
			Size: n.size, SHA256: n.sum, Text: n.text, Target: printable(n.target), Xattrs: n.xattrs, MTime: "unset",
		}
		if n.typ == "char" || n.typ == "block" {
			e.Device = fmt.Sprintf("%d:%d", n.major, n.minor)
		}
		if n.hasTime {
			e.MTime = stampUnix(n.mtime)
		}
		if l := names[n]; len(l) > 1 {
			for _, name := range l {
				e.Links = append(e.Links, printable(name))
			}
			sort.Strings(e.Links)
		}
		out[e.Path] = e
	}
	return out
}

// printable writes bytes that are not UTF-8 as \xNN, since JSON cannot hold them.
func printable(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, "\\x%02x", s[0])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// WriteJSON prints d with one line for each path, layer and history record.
func (d *Dump) WriteJSON(w io.Writer) error {
	var b bytes.Buffer
	var bad error
	str := func(v any) string {
		var s bytes.Buffer
		e := json.NewEncoder(&s)
		e.SetEscapeHTML(false)
		bad = errors.Join(bad, e.Encode(v))
		return string(bytes.TrimRight(s.Bytes(), "\n"))
	}
	list := func(key string, n int, at func(i int) any, last bool) {
		fmt.Fprintf(&b, "  %q: [", key)
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "\n    %s", str(at(i)))
		}
		if n > 0 {
			b.WriteString("\n  ")
		}
		b.WriteByte(']')
		if !last {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString("{\n")
	fmt.Fprintf(&b, "  \"platform\": %s,\n", str(d.Platform))
	if d.Created != "" {
		fmt.Fprintf(&b, "  \"created\": %s,\n", str(d.Created))
	}
	if d.Author != "" {
		fmt.Fprintf(&b, "  \"author\": %s,\n", str(d.Author))
	}
	fmt.Fprintf(&b, "  \"media_type\": %s,\n", str(d.MediaType))
	b.WriteString("  \"config\": {")
	v := reflect.ValueOf(d.Config)
	first := true
	for i := range v.NumField() {
		f := v.Field(i)
		if f.IsZero() || (f.Kind() == reflect.Slice || f.Kind() == reflect.Map) && f.Len() == 0 {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		fmt.Fprintf(&b, "\n    %q: %s", v.Type().Field(i).Name, str(f.Interface()))
	}
	b.WriteString("\n  },\n")
	list("history", len(d.History), func(i int) any { return d.History[i] }, false)
	if len(d.BaseDiffIDs) > 0 {
		list("base_diff_ids", len(d.BaseDiffIDs), func(i int) any { return d.BaseDiffIDs[i] }, false)
	}
	list("layers", len(d.Layers), func(i int) any { return d.Layers[i] }, false)
	if len(d.Removed) > 0 {
		list("removed", len(d.Removed), func(i int) any { return d.Removed[i] }, false)
	}
	if len(d.Problems) > 0 {
		list("problems", len(d.Problems), func(i int) any { return d.Problems[i] }, false)
	}
	list("fs", len(d.FS), func(i int) any { return d.FS[i] }, true)
	b.WriteString("}\n")
	if bad != nil {
		return bad
	}
	_, err := w.Write(b.Bytes())
	return err
}

// ReadDump reads a file made by WriteJSON.
func ReadDump(file string) (*Dump, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	d := &Dump{}
	if err := dec.Decode(d); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}

// Find returns the entry of path in the whole root file system.
func (d *Dump) Find(path string) (Entry, bool) {
	e, ok := d.fullFS[path]
	return e, ok
}

// Paths lists the whole root file system, sorted.
func (d *Dump) Paths() []string { return sortedKeys(d.fullFS) }
