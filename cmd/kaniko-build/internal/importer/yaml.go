package importer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"kaniko-build/schema/diag"
)

// YAML is a value of a YAML file of others, with its place. The zero value is what
// is not there.
type YAML struct {
	file string
	node *yaml.Node
}

// Pair is an entry of a mapping.
type Pair struct {
	Key   string
	Pos   diag.Pos
	Value YAML
}

const (
	maxYAMLDepth = 100
	maxYAMLPairs = 100_000 // of one mapping, with what is merged into it
)

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

// ReadYAML reads the documents of a file.
func ReadYAML(file string, text []byte) ([]YAML, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var out []YAML
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			p := &diag.Problem{Pos: diag.Pos{File: file}, What: err.Error()}
			if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
				p.Pos.Line, _ = strconv.Atoi(m[1]) // without one it is 0
				p.What = "this is no YAML: " + m[2]
			}
			return nil, p
		}
		if len(doc.Content) > 0 {
			out = append(out, YAML{file, doc.Content[0]}.follow())
		}
	}
}

// follow is what an alias stands for.
func (y YAML) follow() YAML {
	for i := 0; y.node != nil && y.node.Kind == yaml.AliasNode && i < maxYAMLDepth; i++ {
		y.node = y.node.Alias
	}
	return y
}

// Pos is where a value stands.
func (y YAML) Pos() diag.Pos {
	if y.node == nil {
		return diag.Pos{File: y.file}
	}
	return diag.Pos{File: y.file, Line: y.node.Line, Col: y.node.Column}
}

// Is tells whether there is something.
func (y YAML) Is() bool { return y.node != nil && !y.IsNull() }

// IsNull tells whether somebody wrote null, or nothing behind a key.
func (y YAML) IsNull() bool {
	return y.node != nil && y.node.Kind == yaml.ScalarNode && y.node.ShortTag() == "!!null"
}

// IsMap, IsList and IsText tell the kind.
func (y YAML) IsMap() bool { return y.node != nil && y.node.Kind == yaml.MappingNode }

// IsList tells whether it is a list.
func (y YAML) IsList() bool { return y.node != nil && y.node.Kind == yaml.SequenceNode }

// IsText tells whether it is a scalar.
func (y YAML) IsText() bool { return y.Is() && y.node.Kind == yaml.ScalarNode }

// Tag is an own YAML tag such as !reset, or "".
func (y YAML) Tag() string {
	if y.node != nil && y.node.Style&yaml.TaggedStyle != 0 && strings.HasPrefix(y.node.Tag, "!") && !strings.HasPrefix(y.node.Tag, "!!") {
		return y.node.Tag
	}
	return ""
}

// Text is a scalar as it is written.
func (y YAML) Text() string {
	if !y.IsText() {
		return ""
	}
	return y.node.Value
}

// Value is a scalar as those read it who take a number for a number: 3.10 is 3.1, and
// 2_28 is 228.
func (y YAML) Value() string {
	if !y.IsText() {
		return ""
	}
	var v any
	if err := y.node.Decode(&v); err != nil {
		return y.node.Value
	}
	return fmt.Sprint(v)
}

// Part is a text at the place of y, null if there is none.
func (y YAML) Part(text string, is bool) YAML {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Line: y.Pos().Line, Column: y.Pos().Col}
	if !is {
		n.Tag, n.Value = "!!null", ""
	}
	return YAML{y.file, n}
}

// Map is an empty mapping at the place of y.
func (y YAML) Map() YAML {
	return YAML{y.file, &yaml.Node{Kind: yaml.MappingNode, Line: y.Pos().Line, Column: y.Pos().Col}}
}

// True tells whether it says yes.
func (y YAML) True() bool { return strings.EqualFold(y.Text(), "true") }

// Items is a list, or a single value as one.
func (y YAML) Items() []YAML {
	switch {
	case !y.Is():
		return nil
	case !y.IsList():
		return []YAML{y}
	}
	var out []YAML
	for _, n := range y.node.Content {
		out = append(out, YAML{y.file, n}.follow())
	}
	return out
}

// Texts is Items as texts.
func (y YAML) Texts() []string {
	var out []string
	for _, item := range y.Items() {
		if item.IsText() {
			out = append(out, item.Text())
		}
	}
	return out
}

// Pairs is the entries of a mapping, with what "<<" merges into it behind its own.
func (y YAML) Pairs() []Pair { return y.pairs(0) }

func (y YAML) pairs(depth int) []Pair {
	if !y.IsMap() || depth > maxYAMLDepth {
		return nil
	}
	var out []Pair
	var merged []YAML
	has := map[string]bool{}
	for i := 0; i+1 < len(y.node.Content); i += 2 {
		key, value := y.node.Content[i], YAML{y.file, y.node.Content[i+1]}.follow()
		if key.Value == "<<" && key.Style == 0 {
			merged = append(merged, value.Items()...)
			continue
		}
		if !has[key.Value] {
			has[key.Value] = true
			out = append(out, Pair{key.Value, diag.Pos{File: y.file, Line: key.Line, Col: key.Column}, value})
		}
	}
	for _, m := range merged {
		for _, p := range m.pairs(depth + 1) {
			if !has[p.Key] && len(out) < maxYAMLPairs {
				has[p.Key] = true
				out = append(out, p)
			}
		}
	}
	return out
}

// Get is the value of a key.
func (y YAML) Get(key string) YAML {
	for _, p := range y.Pairs() {
		if p.Key == key {
			return p.Value
		}
	}
	return YAML{file: y.file}
}

// At is the value at the end of a path of keys.
func (y YAML) At(keys ...string) YAML {
	for _, k := range keys {
		y = y.Get(k)
	}
	return y
}

// Comment is the lines of comment above a key of a mapping.
func (y YAML) Comment(key string) string {
	if !y.IsMap() {
		return ""
	}
	for i := 0; i+1 < len(y.node.Content); i += 2 {
		if k := y.node.Content[i]; k.Value == key {
			lines := strings.Split(k.HeadComment, "\n")
			for i, l := range lines {
				lines[i] = strings.TrimPrefix(strings.TrimPrefix(l, "#"), " ")
			}
			text := strings.Join(lines, "\n")
			if at := strings.LastIndex(text, "\n\n"); at >= 0 {
				text = text[at+2:] // what stands apart is about something else
			}
			return strings.TrimSpace(text)
		}
	}
	return ""
}

// Describe is a value for messages.
func (y YAML) Describe() string {
	switch {
	case y.IsText():
		return fmt.Sprintf("%q", y.Text())
	case y.IsList():
		return "a list"
	case y.IsMap():
		return "a mapping"
	}
	return "nothing"
}

// Equal tells whether two targets say the same.
func (t Target) Equal(other Target) bool {
	a, err := yaml.Marshal(t.node().Node)
	b, err2 := yaml.Marshal(other.node().Node)
	return err == nil && err2 == nil && bytes.Equal(a, b)
}

// With is a value with another one at the end of a path: set, or taken away if op
// is remove.
func (y YAML) With(path []string, op string, value YAML) YAML {
	if len(path) == 0 || y.node == nil {
		return value
	}
	out := *y.node
	out.Content = nil
	key := strings.NewReplacer("~1", "/", "~0", "~").Replace(path[0])
	found := false
	step := 1
	if y.IsMap() {
		step = 2
	}
	for i := 0; i+step <= len(y.node.Content); i += step {
		child := YAML{y.file, y.node.Content[i+step-1]}
		is := y.IsMap() && y.node.Content[i].Value == key || y.IsList() && strconv.Itoa(i) == key
		if is {
			found = true
			if len(path) == 1 && op == "remove" {
				continue
			}
			child = child.follow().With(path[1:], op, value)
		}
		if y.IsMap() {
			out.Content = append(out.Content, y.node.Content[i])
		}
		out.Content = append(out.Content, child.node)
	}
	if !found && op != "remove" {
		for _, k := range slices.Backward(path[1:]) {
			value.node = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: k}, value.node}}
		}
		if y.IsMap() {
			out.Content = append(out.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key})
		}
		out.Content = append(out.Content, value.node)
	}
	return YAML{y.file, &out}
}
