package schema

import (
	"regexp"
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// tag is one tag that holds.
type tag struct {
	text     string // as Expand takes it
	late     bool   // it holds a reference
	identity bool
	pos      diag.Pos
}

// refs sets each image with each tag. Empty tags and repeats drop out; when no tag
// is left it is latest. A tag with "/" or ":" is a ref of its own.
func (d decoder) refs(t *Target) {
	if !nameText.MatchString(t.Base[strings.LastIndexByte(t.Base, '/')+1:]) {
		return // told already; the name is the image of most targets
	}
	images := d.body.get("image").list()
	if len(images) == 0 {
		images = []*value{newText(t.Pos, t.Base)} // image: null leaves what is built in
	}
	suffix := ""
	if t.Variant != "" {
		suffix = "-" + t.Variant
	}
	if v := d.body.get("tagSuffix"); v != nil {
		suffix = v.text
	}
	suffix = lateEscape.ReplaceAllString(suffix, "$$$0")
	var tags []tag
	full := false
	for _, item := range d.body.get("tags").list() {
		for _, one := range d.tag(item) {
			if strings.ContainsAny(withoutRefs(one.text), "/:") {
				full = true
				d.addRef(t, one)
				continue
			}
			tags = append(tags, one)
		}
	}
	if len(tags) == 0 && !full {
		tags = []tag{{text: "latest"}}
	}
	if len(images)*len(tags) > maxRefs {
		d.problems.Add(t.Pos, "", "target %q has %d images with %d tags, which is more than %d in all", t.Name, len(images), len(tags), maxRefs)
		return
	}
	good := tags[:0]
	for _, one := range tags {
		one.text += suffix
		if !isTag(withoutRefs(one.text)) {
			pos := one.pos
			if pos == (diag.Pos{}) {
				pos = t.Pos
			}
			d.problems.Add(pos, "letters, digits, _ . - and at most 128 of them; ${...|slug} makes a tag of any text", "%q is not a tag", one.text)
			continue
		}
		good = append(good, one)
	}
	for _, image := range images {
		r, ok := ParseRef(image.text)
		if !ok {
			d.problems.Add(image.pos, "lower-case letters and digits, such as registry.example.com/shop/api", "%q is not the name of a repository", image.text)
			continue
		}
		if r.Tag != "" || r.Digest != "" {
			d.problems.Add(image.pos, "put the tag into tags", "image %q names more than a repository", image.text)
			continue
		}
		for _, one := range good {
			if one.text = r.Repository + ":" + one.text; one.pos == (diag.Pos{}) {
				one.pos = image.pos
			}
			d.addRef(t, one)
		}
	}
}

// tag is what an item of tags comes to: nothing if its condition does not hold.
func (d decoder) tag(item *value) []tag {
	text := item
	if item.kind == mapKind {
		text = item.get("tag")
		if cond := item.get("if"); cond != nil {
			if yes, ok := d.x.holds(cond); !ok || !yes {
				return nil
			}
		}
	}
	if text == nil || text.text == "" {
		return nil
	}
	one := tag{text: text.text, late: HasLate(text.text), identity: item.get("role").str() == "identity", pos: text.pos}
	out := []tag{one}
	expand := item.get("expand").strings()
	if len(expand) == 0 {
		return out
	}
	m := versionText.FindStringSubmatch(one.text)
	if m == nil {
		d.problems.Add(text.pos, "take expand out, or write ${git.tag|semver}", "%q is not a version such as 1.4.2, and has no shorter forms", one.text)
		return out
	}
	if m[4] != "" {
		return out // the short forms of a version that is not final would hide the last one that is
	}
	for _, form := range tagExpansions {
		if slices.Contains(expand, form) {
			short := one
			short.text = m[1] + m[2]
			if form == "minor" {
				short.text += "." + m[3]
			}
			out = append(out, short)
		}
	}
	return out
}

// versionText is a version: v, major, minor, and what makes it one that is not final.
var versionText = regexp.MustCompile(`^(v?)(\d+)\.(\d+)\.\d+(-[0-9A-Za-z.-]+)?(?:[_+][0-9A-Za-z_.-]+)?$`)

// addRef adds a ref once.
func (d decoder) addRef(t *Target, one tag) {
	r, ok := ParseRef(withoutRefs(one.text))
	if !ok || r.Tag == "" || r.Digest != "" {
		d.problems.Add(one.pos, "write repository:tag", "%q is not an image with a tag", one.text)
		return
	}
	if one.late {
		if !slices.ContainsFunc(t.InputRefs, func(old InputRef) bool { return old.Text == one.text }) {
			t.InputRefs = append(t.InputRefs, InputRef{one.text, one.identity, one.pos})
		}
		return
	}
	named := Named{r.String(), one.pos}
	same := func(old Named) bool { return old.Name == named.Name }
	if !slices.ContainsFunc(t.Refs, same) {
		t.Refs = append(t.Refs, named)
	}
	if one.identity && !slices.ContainsFunc(t.IdentityRefs, same) {
		t.IdentityRefs = append(t.IdentityRefs, named)
	}
}

// withoutRefs puts a letter in the place of each reference of a text, to see
// whether the rest is what it should be.
func withoutRefs(text string) string {
	segments, bad := splitText(text)
	if bad != nil {
		return text
	}
	var b strings.Builder
	for _, s := range segments {
		if s.ref != nil {
			b.WriteByte('x')
		}
		b.WriteString(s.literal)
	}
	return b.String()
}
