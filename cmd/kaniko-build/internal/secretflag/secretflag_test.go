package secretflag_test

import (
	"strings"
	"testing"

	"kaniko-build/cmd/kaniko-build/internal/secretflag"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]secretflag.Secret{
		"id=a":                         {ID: "a"},
		"id=a,src=f":                   {ID: "a", File: "f"},
		"source=f,id=a,type=file":      {ID: "a", File: "f", Type: "file"},
		"id=a,env=E":                   {ID: "a", Env: "E"},
		"type=env,id=a,src=E":          {ID: "a", Env: "E", Type: "env"},
		"type=env,id=a,src=f,env=E":    {ID: "a", File: "f", Env: "E", Type: "env"},
		`id=a,"src=a file, of commas"`: {ID: "a", File: "a file, of commas"},
	} {
		if got, err := secretflag.Parse(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"":           "there is no id",
		"src=f":      "there is no id",
		"id=a,plain": `"plain" has no value`,
		"id=a,mode=0400": `no field "mode"
  hint: write id=ID,src=FILE or id=ID,env=NAME`,
		`id=a,"src`: "",
	} {
		if _, err := secretflag.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}
