// Package secretflag reads a secret as docker and kaniko write it on a command line.
//
//	id=ID,src=FILE ─ Parse ─> Secret
//
// It looks at the text alone: whether there is such a file or variable is known to
// who has them.
package secretflag

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
)

// Secret is what the text says. Without File and Env it is up to the reader where the
// secret comes from.
type Secret struct {
	ID, File, Env string
	Type          string // "file", "env", or "" if the text names none
}

// Parse reads id=ID[,src=FILE|,source=FILE|,env=NAME][,type=file|env], fields of CSV. Its
// errors say what is wrong with the text, and not of which flag.
func Parse(text string) (Secret, error) {
	var out Secret
	if text == "" {
		return out, errors.New("there is no id")
	}
	fields, err := csvvalue.Fields(text, nil)
	if err != nil {
		return out, err
	}
	for _, field := range fields {
		k, v, ok := strings.Cut(field, "=")
		if !ok {
			return out, fmt.Errorf("%q has no value", field)
		}
		switch k {
		case "id":
			out.ID = v
		case "src", "source":
			out.File = v
		case "env":
			out.Env = v
		case "type":
			out.Type = v
		default:
			return out, fmt.Errorf("no field %q\n  hint: write id=ID,src=FILE or id=ID,env=NAME", k)
		}
	}
	if out.Type == "env" && out.Env == "" {
		out.Env, out.File = out.File, ""
	}
	if out.ID == "" {
		return out, errors.New("there is no id")
	}
	return out, nil
}
