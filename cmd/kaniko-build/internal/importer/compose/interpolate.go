package compose

import (
	"regexp"
	"slices"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/schema/diag"
)

// use is what the texts of a file say of one variable.
type use struct {
	defaults []string // ours, each once, in order; "" for none
	bare     bool     // an argument without a value takes it, and is none without it
	required bool
}

// variables collects the variables of a project. It is filled in a first reading
// and decides, in a second one, what stands in the manifest.
type variables struct {
	order  []string
	uses   map[string]*use
	second bool
	draft  *importer.Draft
}

func (v *variables) use(name string) *use {
	u := v.uses[name]
	if u == nil {
		u = &use{}
		v.uses[name] = u
		v.order = append(v.order, name)
	}
	return u
}

// bare is the value of an argument that has none in the file.
func (v *variables) bare(name string) string {
	v.use(name).bare = true
	return "${vars." + ours(name) + "}"
}

// with is a variable in a text that says what it is by default.
func (v *variables) with(name, fallback string) string {
	if name == "COMPOSE_PROJECT_NAME" {
		return "${workspace.name}"
	}
	u := v.use(name)
	if !v.second {
		if !slices.Contains(u.defaults, fallback) {
			u.defaults = append(u.defaults, fallback)
		}
	}
	if u.bare || len(u.defaults) > 1 {
		return "${vars." + ours(name) + ":-" + fallback + "}"
	}
	return "${vars." + ours(name) + "}"
}

// ours is a name that a variable of the manifest may have.
func ours(name string) string { return strings.TrimLeft(name, "_0123456789") }

// declare makes the variables of the manifest.
func (v *variables) declare() {
	for _, name := range v.order {
		u := v.uses[name]
		out := importer.Var{Name: ours(name), Env: []string{name}}
		switch {
		case u.bare:
			out.Default = importer.Text{Null: true}
		case u.required && len(u.defaults) == 0:
			out.None = true
		case len(u.defaults) == 1:
			out.Default.Value = u.defaults[0]
		}
		v.draft.Vars = append(v.draft.Vars, out)
	}
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*`)

// expand is a text of the file as a text of the manifest.
func (v *variables) expand(s string, at diag.Pos) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			break
		}
		out.WriteString(importer.Literal(s[:i]))
		s = s[i+1:]
		switch name := variable.FindString(s); {
		case s[0] == '$':
			out.WriteByte('$')
			s = s[1:]
		case name != "":
			out.WriteString(v.with(name, ""))
			s = s[len(name):]
		case s[0] == '{':
			end := closing(s)
			if end < 0 {
				out.WriteByte('$')
				continue
			}
			out.WriteString(v.braced(s[1:end], at))
			s = s[end+1:]
		default:
			out.WriteByte('$')
		}
	}
	out.WriteString(importer.Literal(s))
	return out.String()
}

// closing is where the brace that s begins with is closed; -1 if nowhere.
func closing(s string) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// braced is what stands between ${ and }.
func (v *variables) braced(s string, at diag.Pos) string {
	name := variable.FindString(s)
	rest := s[len(name):]
	op := strings.TrimLeft(rest, ":")
	switch {
	case name == "":
	case rest == "":
		return v.with(name, "")
	case op != "" && op[0] == '-':
		fallback := v.expand(op[1:], at)
		if importer.HasReference(fallback) {
			if v.second {
				if u := v.use(name); u.bare || len(u.defaults) > 1 {
					v.draft.Drop(at, "", "the default of ${%s}, as there is another one elsewhere", name)
					fallback = ""
				}
			}
		}
		return v.with(name, fallback)
	case op != "" && op[0] == '?':
		v.use(name).required = true
		message := strings.NewReplacer("}", "", "|", " ", "${", "").Replace(op[1:])
		if message == "" {
			message = "it is required"
		}
		return "${vars." + ours(name) + ":?" + message + "}"
	case op != "" && op[0] == '+':
		v.draft.Drop(at, "", "${%s}: there is no such form here; it is as if %s were not set", s, name)
		return ""
	}
	return importer.Literal("${" + s + "}")
}

// now is a text with the defaults of its variables.
func (v *variables) now(s string) string {
	plain := &variables{uses: map[string]*use{}, draft: &importer.Draft{}}
	out := plain.expand(s, diag.Pos{})
	for _, name := range plain.order {
		for _, d := range append(plain.uses[name].defaults, "") {
			out = strings.ReplaceAll(out, "${vars."+ours(name)+"}", d)
			break
		}
	}
	return out
}
