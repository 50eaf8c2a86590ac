package manpage

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Write writes a page of c and of each command below it that is shown, into dir, and
// returns their names. version is in the foot of each.
func Write(c *cobra.Command, dir, version string) (names []string, err error) {
	name := pageName(c) + ".1"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(Page(c, version)), 0o644); err != nil {
		return nil, fmt.Errorf("write manual page: %w", err)
	}
	names = append(names, name)
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		more, err := Write(sub, dir, version)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return names, nil
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// Page is the page of one command.
func Page(c *cobra.Command, version string) string {
	c.InitDefaultHelpFlag()
	p := &page{}
	root := c.Root().Name()
	p.line(".TH %s 1 \"\" %s %s", quote(strings.ToUpper(pageName(c))), quote(root+" "+version), quote("User Commands"))
	p.section("NAME")
	p.line("%s \\- %s", escape(pageName(c)), escape(lower(c.Short)))
	p.section("SYNOPSIS")
	p.line(".B %s", escape(c.CommandPath()))
	rest := strings.TrimPrefix(c.UseLine(), c.CommandPath())
	if c.HasAvailableSubCommands() {
		rest = " COMMAND [flags]"
	}
	p.text(strings.TrimSpace(rest))
	p.section("DESCRIPTION")
	p.paragraphs(or(c.Long, c.Short+"."))
	if c.HasAvailableSubCommands() {
		p.section("COMMANDS")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				p.line(".TP")
				p.line(".BR %s (1)", escape(pageName(sub)))
				p.text(sub.Short + ".")
			}
		}
	}
	p.flags("OPTIONS", c.NonInheritedFlags())
	p.flags("OPTIONS OF ALL COMMANDS", c.InheritedFlags())
	if c.Example != "" {
		p.section("EXAMPLES")
		p.line(".EX")
		for l := range strings.SplitSeq(c.Example, "\n") {
			p.text(strings.TrimPrefix(l, "  "))
		}
		p.line(".EE")
	}
	if c.HasParent() {
		p.section("SEE ALSO")
		p.line(".BR %s (1)", escape(pageName(c.Parent())))
	}
	return p.b.String()
}

type page struct{ b strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

func (p *page) section(name string) { p.line(".SH %s", quote(name)) }

// text is a line of text, whatever is in it.
func (p *page) text(s string) {
	if s = escape(s); strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	p.line("%s", s)
}

// paragraphs are parts of a text with empty lines between them; one that is indented
// stays as it is.
func (p *page) paragraphs(s string) {
	for i, part := range strings.Split(strings.TrimSpace(s), "\n\n") {
		if i > 0 {
			p.line(".PP")
		}
		plain := strings.HasPrefix(part, " ") || strings.HasPrefix(part, "\t")
		if plain {
			p.line(".EX")
		}
		for l := range strings.SplitSeq(part, "\n") {
			p.text(l)
		}
		if plain {
			p.line(".EE")
		}
	}
}

// flags are those that are shown, by name.
func (p *page) flags(title string, set *pflag.FlagSet) {
	if !set.HasAvailableFlags() {
		return
	}
	p.section(title)
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		p.line(".TP")
		head := ""
		if f.Shorthand != "" && f.ShorthandDeprecated == "" {
			head = `\fB\-` + escape(f.Shorthand) + `\fR, `
		}
		head += `\fB\-\-` + escape(f.Name) + `\fR`
		switch {
		case f.NoOptDefVal != "" && f.Value.Type() != "bool":
			head += `[=\fI` + escape(value) + `\fR]`
		case value != "":
			head += ` \fI` + escape(value) + `\fR`
		}
		p.line("%s", head)
		if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "0s" && d != "[]" && !strings.Contains(usage, "(default") {
			usage += " (default " + d + ")"
		}
		p.text(usage + ".")
	})
}

// escape writes text as roff: a hyphen is one that can be copied.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "\t", "    ").Replace(s)
}

// quote is an argument of a macro.
func quote(s string) string { return `"` + strings.ReplaceAll(escape(s), `"`, `\(dq`) + `"` }

func lower(s string) string { return strings.ToLower(s[:min(1, len(s))]) + s[min(1, len(s)):] }

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
