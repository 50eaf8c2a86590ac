package importer

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Write writes the manifest.
func (d *Draft) Write(w io.Writer) error {
	doc := mapping()
	doc.add("version", number("1"))
	doc.texts("include", d.Includes)
	if len(d.EnvFiles) > 0 {
		files := sequence()
		for _, f := range d.EnvFiles {
			one := mapping()
			one.text("path", f)
			one.add("optional", truth(true))
			files.push(one)
		}
		doc.add("envFiles", files)
	}
	vars := mapping()
	for _, v := range d.Vars {
		vars.commented(v.Name, v.node(), v.Comment)
	}
	doc.some("vars", vars)
	secrets := mapping()
	for _, s := range d.Secrets {
		one := mapping()
		one.text("file", s.File)
		one.text("env", s.Env)
		secrets.add(s.ID, one)
	}
	doc.some("secrets", secrets)
	agents := mapping()
	for _, s := range d.SSH {
		one := mapping()
		one.texts("keys", s.Keys)
		agents.add(s.ID, one)
	}
	doc.some("ssh", agents)
	registries := mapping()
	for _, r := range d.Registries {
		one := mapping()
		one.texts("mirrors", r.Mirrors)
		one.text("ca", r.CA)
		if r.Insecure {
			one.add("insecure", truth(true))
		}
		registries.add(r.Host, one)
	}
	doc.some("registries", registries)
	if d.Defaults != nil {
		doc.some("defaults", d.Defaults.node())
	}
	templates := mapping()
	for _, t := range d.Templates {
		templates.commented(t.Name, t.node(), t.Comment)
	}
	doc.some("templates", templates)
	targets := mapping()
	for _, t := range d.Targets {
		targets.commented(t.Name, t.node(), t.Comment)
	}
	doc.add("targets", targets)
	groups := mapping()
	for _, g := range d.Groups {
		list := sequence()
		for _, name := range g.Targets {
			list.push(text(Text{Value: name}))
		}
		groups.add(g.Name, list)
	}
	doc.some("groups", groups)
	profiles := mapping()
	for _, p := range d.Profiles {
		changes := mapping()
		for _, t := range p.Targets {
			changes.add(t.Name, t.node())
		}
		one := mapping()
		one.text("when", p.When)
		if p.Defaults != nil {
			one.some("defaults", p.Defaults.node())
		}
		one.some("targets", changes)
		if p.Push {
			one.add("run", pushes())
		}
		switch {
		case p.Local:
			runner := mapping()
			runner.text("type", "local")
			one.add("runner", runner)
		case p.Cluster != nil:
			one.add("runner", p.Cluster.node())
		}
		profiles.add(p.Name, one)
	}
	doc.some("profiles", profiles)
	if d.Push {
		doc.add("run", pushes())
	}
	if d.Cluster != nil {
		doc.add("runner", d.Cluster.node())
	}
	for i := 3; i < len(doc.Content); i += 2 {
		if section := (node{doc.Content[i]}); section.Kind == yaml.MappingNode {
			for j := 1; j < len(section.Content); j += 2 {
				shorten(section.Content[j], len(section.Content[j-1].Value)+4)
			}
		}
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(doc.Node); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return enc.Close()
}

func pushes() node {
	n := mapping()
	n.add("push", truth(true))
	return n
}

func (c Cluster) node() node {
	pods := mapping()
	pods.value("namespace", c.Namespace)
	pods.value("serviceAccount", c.ServiceAccount)
	if len(c.Labels) > 0 {
		selector := mapping()
		for _, platform := range c.Platforms {
			labels := slices.Clone(c.Labels)
			if _, arch, _ := strings.Cut(platform, "/"); !slices.ContainsFunc(labels, func(e Entry) bool { return e.Key == archLabel }) {
				arch, _, _ = strings.Cut(arch, "/")
				labels = append(labels, Entry{Key: archLabel, Text: Plain(arch)})
			}
			selector.add(platform, entries(labels))
		}
		pods.add("nodeSelector", selector)
	}
	if len(c.Tolerations) > 0 {
		list := sequence()
		for _, t := range c.Tolerations {
			list.push(entries(t))
		}
		pods.add("tolerations", list)
	}
	n := mapping()
	n.text("type", "kubernetes")
	n.some("kubernetes", pods)
	return n
}

// archLabel is the one that the runner asks for where no labels are given.
const archLabel = "kubernetes.io/arch"

func (v Var) node() node {
	n := mapping()
	n.text("type", v.Type)
	switch {
	case v.List != nil || v.Type == "list":
		n.add("default", list(v.List))
	case v.Map != nil || v.Type == "map":
		n.add("default", entries(v.Map))
	case !v.None:
		def := text(v.Default)
		if v.Type == "int" || v.Type == "bool" {
			n.Content = n.Content[2:] // the default shows it
			def.Tag, def.Style = "", 0
		}
		n.add("default", def)
	}
	n.texts("env", v.Env)
	n.texts("enum", v.Enum)
	n.text("pattern", v.Pattern)
	n.text("description", v.Description)
	if v.Required {
		n.add("required", truth(true))
	}
	return n
}

func (t Target) node() node {
	n := mapping()
	n.texts("extends", t.Extends)
	if t.Internal {
		n.add("internal", truth(true))
	}
	n.value("context", t.Context)
	n.value("dockerfile", t.Dockerfile)
	n.value("dockerfileInline", t.Inline)
	n.value("stage", t.Stage)
	n.entries("args", t.Args)
	n.entries("contexts", t.Contexts)
	if len(t.Images) == 1 {
		n.value("image", t.Images[0])
	} else if len(t.Images) > 0 {
		n.add("image", list(t.Images))
	}
	n.value("tags", t.TagList)
	if len(t.Tags) > 0 {
		tags := sequence()
		for _, tag := range t.Tags {
			if tag.If == "" && tag.Role == "" {
				tags.push(text(tag.Text))
				continue
			}
			one := mapping()
			one.value("tag", tag.Text)
			one.text("if", tag.If)
			one.text("role", tag.Role)
			tags.push(one)
		}
		n.add("tags", tags)
	}
	if t.TagSuffix != nil {
		n.add("tagSuffix", text(Text{Value: *t.TagSuffix}))
	}
	n.entries("labels", t.Labels)
	n.entries("annotations", t.Annotated)
	n.value("platforms", t.Platform)
	if len(t.Platforms) > 0 {
		n.add("platforms", list(t.Platforms))
	}
	n.texts("needs", t.Needs)
	if len(t.Secrets) > 0 {
		grants := sequence()
		for _, g := range t.Secrets {
			if g.As == "" || g.As == g.ID {
				grants.push(text(Text{Value: g.ID}))
				continue
			}
			one := mapping()
			one.text("id", g.ID)
			one.text("as", g.As)
			grants.push(one)
		}
		n.add("secrets", grants)
	}
	n.texts("ssh", t.SSH)
	n.value("network", t.Network)
	if t.NoCache {
		n.add("noCache", truth(true))
	} else if len(t.NoStages) > 0 {
		n.add("noCache", list(t.NoStages))
	}
	if c := t.Cache; c != nil {
		one := mapping()
		one.value("repo", c.Repo)
		if len(c.From) > 0 {
			one.add("from", list(c.From))
		}
		one.text("ttl", c.TTL)
		one.text("write", c.Write)
		if c.Run != "" {
			one.add("run", truth(false))
		}
		if c.Copy != "" {
			one.add("copy", truth(false))
		}
		n.add("cache", one)
	}
	if t.Provenance != "" || t.SBOM || t.NoSBOM {
		attest := mapping()
		if t.Provenance == "false" {
			attest.add("provenance", truth(false))
		} else {
			attest.text("provenance", t.Provenance)
		}
		if t.SBOM {
			attest.add("sbom", truth(true))
		} else if t.NoSBOM {
			attest.add("sbom", truth(false))
		}
		n.add("attest", attest)
	}
	if len(t.Outputs) > 0 {
		outputs := sequence()
		for _, o := range t.Outputs {
			one := mapping()
			one.text("type", o.Type)
			one.value("dest", o.Dest)
			outputs.push(one)
		}
		n.add("outputs", outputs)
	}
	hooks := mapping()
	hooks.hooks("before", t.Before)
	hooks.hooks("after", t.After)
	n.some("hooks", hooks)
	if t.CPU != "" || t.Memory != "" {
		resources := mapping()
		resources.text("cpu", t.CPU)
		resources.text("memory", t.Memory)
		n.add("resources", resources)
	}
	n.text("timeout", t.Timeout)
	if len(t.Executor) > 0 || len(t.ExtraArgs) > 0 {
		executor := entries(t.Executor)
		for i := 1; i < len(executor.Content); i += 2 {
			if v := executor.Content[i]; v.Value == "true" || executor.Content[i-1].Value == "compressionLevel" {
				v.Tag, v.Style = "", 0
			}
		}
		executor.texts("extraArgs", t.ExtraArgs)
		n.add("executor", executor)
	}
	if len(t.Matrix) > 0 {
		matrix := mapping()
		for _, a := range t.Matrix {
			matrix.add(a.Name, list(a.Values))
		}
		n.add("matrix", matrix)
	}
	n.value("variant", t.Variant)
	if len(t.Rules) > 0 {
		rules := sequence()
		for _, r := range t.Rules {
			one := mapping()
			one.texts("paths", r.Paths)
			one.text("action", r.Action)
			one.text("to", r.To)
			one.text("via", r.Via)
			if r.Exec.some() {
				one.add("exec", r.Exec.node())
			}
			rules.push(one)
		}
		watch := mapping()
		watch.add("rules", rules)
		n.add("watch", watch)
	}
	for _, key := range t.Gone {
		n.add(key, text(Text{Null: true}))
	}
	return n
}

func (h Hook) some() bool { return h.Line != "" || len(h.Words) > 0 }

func (h Hook) node() node {
	if h.Line != "" {
		return text(Text{Value: h.Line})
	}
	return list(Plains(h.Words))
}

// node is YAML in the making.
type node struct{ *yaml.Node }

func mapping() node { return node{&yaml.Node{Kind: yaml.MappingNode}} }

func sequence() node { return node{&yaml.Node{Kind: yaml.SequenceNode}} }

func truth(is bool) node {
	return node{&yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(is)}}
}

func number(s string) node { return node{&yaml.Node{Kind: yaml.ScalarNode, Value: s}} }

// text is a scalar that is read as text, with its source as a comment.
func text(t Text) node {
	n := node{&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: t.Value}}
	if t.Null {
		n.Tag, n.Value = "!!null", "null"
	}
	if strings.Contains(t.Value, "\n") {
		n.Style = yaml.LiteralStyle
	}
	if t.Source != "" {
		n.LineComment = comment("from " + strings.Join(strings.Fields(t.Source), " "))
	}
	return n
}

func list(texts []Text) node {
	n := sequence()
	for _, t := range texts {
		n.push(text(t))
	}
	return n
}

func entries(list []Entry) node {
	n := mapping()
	for _, e := range list {
		n.add(e.Key, text(e.Text))
	}
	return n
}

func (n node) push(v node) { n.Content = append(n.Content, v.Node) }

func (n node) add(key string, v node) {
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, v.Node)
}

// commented adds a key with lines of comment above it.
func (n node) commented(key string, v node, above string) {
	n.add(key, v)
	if above != "" {
		n.Content[len(n.Content)-2].HeadComment = comment(above)
	}
}

// comment is text as the lines of a comment.
func comment(s string) string {
	return "# " + strings.ReplaceAll(strings.TrimSpace(strings.ToValidUTF8(s, "?")), "\n", "\n# ")
}

// The others add a key only if there is something to say.

func (n node) some(key string, v node) {
	if len(v.Content) > 0 {
		n.add(key, v)
	}
}

func (n node) text(key, s string) {
	if s != "" {
		n.add(key, text(Text{Value: s}))
	}
}

func (n node) value(key string, t Text) {
	if t.Value != "" || t.Null {
		n.add(key, text(t))
	}
}

func (n node) texts(key string, s []string) {
	list := sequence()
	for _, one := range s {
		list.push(text(Text{Value: one}))
	}
	n.some(key, list)
}

func (n node) entries(key string, e []Entry) { n.some(key, entries(e)) }

func (n node) hooks(key string, hooks []Hook) {
	list := sequence()
	for _, h := range hooks {
		one := mapping()
		one.add("run", h.node())
		list.push(one)
	}
	n.some(key, list)
}

const lineWidth = 100 // columns that are written on one line

// shorten writes what fits on a line on one line. taken is the columns before it.
func shorten(n *yaml.Node, taken int) {
	if n.Kind == yaml.ScalarNode {
		return
	}
	if width, ok := flat(n); ok && taken+width <= lineWidth {
		n.Style |= yaml.FlowStyle
		return
	}
	for i, child := range n.Content {
		indent := 6
		if n.Kind == yaml.MappingNode && i%2 == 1 {
			indent += len(n.Content[i-1].Value) + 2
		}
		shorten(child, indent)
	}
}

// flat is the width of a node on one line; ok is false if a comment or a text of
// several lines forbids it.
func flat(n *yaml.Node) (width int, ok bool) {
	if n.LineComment != "" || n.HeadComment != "" || n.Style&yaml.LiteralStyle != 0 {
		return 0, false
	}
	width = len(n.Value) + 2
	for _, child := range n.Content {
		w, ok := flat(child)
		if !ok {
			return 0, false
		}
		width += w + 1
	}
	return width, true
}
