package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// JSONSchema is the language as a JSON Schema, draft 7, for editors: what may stand
// where, what it is for, what it is without being written. It is made of the tables
// in language.go. What only Parse can tell, such as unknown names, it lets through.
func JSONSchema() ([]byte, error) {
	w := &schemaWriter{definitions: object{}, names: map[*shape]string{bodyShape: "body", textShape: "text"}}
	root := w.mapping(manifestShape, "manifest")
	doc := object{
		"$schema":     "http://json-schema.org/draft-07/schema#",
		"$id":         "https://kaniko-build.example/schema/v1.json",
		"title":       "kaniko-build.yaml",
		"description": "The images of a repository and how they are built.",
	}
	for k, v := range root {
		doc[k] = v
	}
	w.definitions["reference"] = object{
		"type": "string", "pattern": `^\$\{[A-Za-z_][A-Za-z0-9_]*\.[^}]*\}$`,
		"description": "A reference, ${namespace.name}: vars, env, git, ci, build, target, matrix, workspace, input, result; with :-default, :?message and |filter.",
	}
	doc["definitions"] = w.definitions
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return nil, fmt.Errorf("encode the schema: %w", err)
	}
	return b.Bytes(), nil
}

// object is a JSON object; the encoder sorts its keys.
type object map[string]any

// schemaWriter makes schemas of shapes. Those that hold others become definitions,
// called after the key that they were first met at.
type schemaWriter struct {
	definitions object
	names       map[*shape]string
}

// of is the schema of a shape. A literal one cannot be a reference.
func (w *schemaWriter) of(s *shape, key string, literal bool) object {
	if s.body && s.fields == nil {
		s = bodyShape
	}
	name := w.names[s]
	if name == "" && !s.many() && s.keys() == nil {
		return w.inline(s, key, literal)
	}
	if name == "" {
		name = key
		for n := 2; w.definitions[name] != nil; n++ {
			name = fmt.Sprintf("%s-%d", key, n)
		}
		w.names[s] = name
	}
	if w.definitions[name] == nil {
		w.definitions[name] = object{} // met again while it is being made
		w.definitions[name] = w.inline(s, name, literal)
	}
	return object{"$ref": "#/definitions/" + name}
}

// inline is the schema of a shape: one of what it allows.
func (w *schemaWriter) inline(s *shape, key string, literal bool) object {
	var out []object
	switch {
	case s.condition:
		out = append(out, object{"type": "string"})
	case s.text && s.words != nil:
		out = append(out, object{"enum": s.words})
	case s.text && s.pattern != "":
		out = append(out, object{"type": []string{"string", "number"}, "pattern": s.pattern})
	case s.text:
		out = append(out, object{"type": []string{"string", "number", "boolean"}})
	}
	if s.bool {
		out = append(out, object{"type": "boolean"})
	}
	if s.int {
		out = append(out, object{"type": "integer", "minimum": 0})
	}
	if words := s.words; !s.text && words != nil {
		if !s.bool && !s.int { // the version
			return object{"enum": []any{1}}
		}
		out = append(out, object{"enum": slices.DeleteFunc(slices.Clone(words), func(w string) bool { return s.bool && (w == "true" || w == "false") })})
	}
	if s.list != nil {
		out = append(out, object{"type": "array", "items": w.of(s.list, key+"-item", literal)})
	}
	if s.keys() != nil || s.dict != nil {
		out = append(out, w.mapping(s, key))
	}
	plainText := s.text && s.words == nil && s.pattern == ""
	if !plainText && !literal && (s.text || s.bool || s.int || s.many()) {
		out = append(out, object{"$ref": "#/definitions/reference"})
	}
	if len(out) == 1 {
		return out[0]
	}
	return object{"anyOf": out}
}

// mapping is the schema of a mapping with keys of ours, of the user's, or both.
func (w *schemaWriter) mapping(s *shape, key string) object {
	out := object{"type": "object"}
	var required []string
	if fields := s.keys(); fields != nil {
		properties := object{}
		for _, f := range fields {
			if f.shape == nil {
				continue // not built yet
			}
			properties[f.name] = w.field(f, f.about, f.shape)
			if f.shape.many() {
				properties[f.name+"+"] = w.field(f, "Added to what is inherited. "+f.about, f.shape)
				properties[f.name+"-"] = w.field(f, "Taken out of what is inherited. "+f.about, removalShape)
			}
			if f.needed {
				required = append(required, f.name)
			}
		}
		out["properties"] = properties
		out["patternProperties"] = object{"^x-": object{}}
		out["additionalProperties"] = false
	}
	if s.dict != nil {
		value := w.orNull(w.of(s.dict, key+"-item", false))
		out["additionalProperties"] = value
		if s.names {
			out["propertyNames"] = object{"pattern": `^[a-z0-9]+([._-][a-z0-9]+)*[+-]?$`}
		}
		if s.dict.many() && s.keys() == nil {
			out["patternProperties"] = object{"-$": w.orNull(w.of(removalShape, "removal", false))}
			out["additionalProperties"] = value
		}
	}
	if required != nil {
		out["required"] = required
	}
	return out
}

// field is the schema of a key: its value, what it is for and its default.
func (w *schemaWriter) field(f field, about string, s *shape) object {
	key := f.name
	if s == removalShape {
		key = "removal"
	}
	out := w.orNull(w.of(s, key, f.literal))
	out["description"] = about
	if f.dflt != "" && s == f.shape {
		out["default"] = json.RawMessage(f.dflt)
	}
	return out
}

// orNull lets a value be taken away.
func (w *schemaWriter) orNull(v object) object {
	null := object{"type": "null"}
	if any, ok := v["anyOf"].([]object); ok {
		return object{"anyOf": append(slices.Clone(any), null)}
	}
	return object{"anyOf": []object{v, null}}
}
