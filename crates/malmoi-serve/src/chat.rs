//! Conversations written as one text, by the template that comes with a tokenizer.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};
use serde_json::{Map, Value, json};

/// Instructions that a template may take for one conversation: of published templates a message takes tens to hundreds.
const FUEL: u64 = 10_000_000;

/// Bytes that a template may write for one conversation, far more than a model reads.
const MAX_BYTES: usize = 8 << 20;

/// A chat template with the special tokens that it may name.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja`, or `chat_template` of `tokenizer_config.json`; `None` without one.
    ///
    /// # Errors
    /// A file that cannot be read, or a template with a mistake.
    pub fn load(directory: &Path) -> Result<Option<Self>, String> {
        let path = directory.join("tokenizer_config.json");
        let config: Value = match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|error| format!("{}: {error}", path.display()))?,
            Err(_) => Value::Null,
        };
        let own = std::fs::read_to_string(directory.join("chat_template.jinja")).ok();
        let template = match (own, &config["chat_template"]) {
            (Some(template), _) => template,
            (None, Value::String(template)) => template.clone(),
            // Several templates by name; the default one is for conversations.
            (None, Value::Array(list)) => {
                let default = list.iter().find(|entry| entry["name"] == "default");
                match default.and_then(|entry| entry["template"].as_str()) {
                    Some(template) => template.to_owned(),
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        Self::new(template, &config)
            .map(Some)
            .map_err(|error| format!("chat template: {error:#}"))
    }

    fn new(template: String, config: &Value) -> Result<Self, Error> {
        let mut environment = Environment::new();
        // As the Python library sets up Jinja.
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build()?);
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.add_function("raise_exception", |message: String| {
            Err::<String, _>(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.set_unknown_method_callback(methods);
        environment.add_template_owned("chat", template)?;
        let token = |key: &str| match &config[key] {
            Value::Object(map) => map.get("content").cloned().unwrap_or_default(),
            other => other.clone(),
        };
        let keys = ["bos_token", "eos_token", "unk_token", "pad_token"];
        let tokens = keys.map(|key| (key.to_owned(), token(key)));
        let given = tokens.into_iter().filter(|(_, token)| token.is_string());
        Ok(Self {
            environment,
            tokens: given.collect(),
        })
    }

    /// The conversation as one text, ready for the assistant's turn.
    ///
    /// # Errors
    /// What the template says against the conversation, and when it takes too many steps or writes too much.
    pub fn render(&self, messages: &Value) -> Result<String, String> {
        let template = self.environment.get_template("chat");
        let mut values = self.tokens.clone();
        values.insert("messages".into(), messages.clone());
        values.insert("add_generation_prompt".into(), json!(true));
        let values: minijinja::Value =
            serde_json::from_value(Value::Object(values)).map_err(|error| error.to_string())?;
        let mut text = Bounded(Vec::new());
        template
            .and_then(|template| template.render_captured_to(values, &mut text).map(drop))
            .map_err(|error| match error.kind() {
                ErrorKind::OutOfFuel => format!(
                    "more than {FUEL} steps for this conversation: send a shorter one, or mend the template"
                ),
                ErrorKind::WriteFailure => format!(
                    "more than {MAX_BYTES} bytes for this conversation: send a shorter one, or mend the template"
                ),
                _ => error.to_string(),
            })?;
        String::from_utf8(text.0).map_err(|error| error.to_string())
    }
}

/// Takes [`MAX_BYTES`] and no more.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The string methods of Python that templates use.
fn methods(
    _state: &mut State<'_, '_>,
    value: &minijinja::Value,
    method: &str,
    arguments: &[minijinja::Value],
) -> Result<minijinja::Value, Error> {
    let unknown = || Error::from(ErrorKind::UnknownMethod);
    let text = value.as_str().ok_or_else(unknown)?;
    let argument = arguments.first().and_then(minijinja::Value::as_str);
    let set = |c: char| match argument {
        Some(set) => set.contains(c),
        None => c.is_whitespace(),
    };
    Ok(match (method, argument) {
        ("strip", _) => text.trim_matches(set).into(),
        ("lstrip", _) => text.trim_start_matches(set).into(),
        ("rstrip", _) => text.trim_end_matches(set).into(),
        ("upper", None) => text.to_uppercase().into(),
        ("lower", None) => text.to_lowercase().into(),
        ("startswith", Some(start)) => text.starts_with(start).into(),
        ("endswith", Some(end)) => text.ends_with(end).into(),
        ("split", Some(by)) if !by.is_empty() => {
            text.split(by).map(str::to_owned).collect::<Vec<_>>().into()
        }
        ("split", None) => {
            let words = text.split_whitespace().map(str::to_owned);
            words.collect::<Vec<_>>().into()
        }
        ("replace", Some(from)) => match arguments.get(1).and_then(minijinja::Value::as_str) {
            Some(to) => text.replace(from, to).into(),
            None => return Err(unknown()),
        },
        _ => return Err(unknown()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(text: &str) -> ChatTemplate {
        let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}});
        ChatTemplate::new(text.into(), &config).unwrap()
    }

    #[test]
    fn a_template_sees_messages_and_special_tokens() {
        let chat = template(
            "{{ bos_token }}{% for m in messages %}\n{% if m['role'] == 'user' %}\n[{{ m.content.strip() }}]{{ eos_token }}\n{% endif %}\n{% endfor %}\n{% if add_generation_prompt %}답:{% endif %}",
        );
        let text = chat.render(&json!([{"role": "user", "content": " 안녕 "}]));
        assert_eq!(text.unwrap(), "<s>[안녕]</s>\n답:");
    }

    #[test]
    fn a_template_ends_and_writes_a_bounded_text() {
        let nested =
            "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
        let error = template(nested).render(&json!([])).unwrap_err();
        assert!(error.contains("steps"), "{error}");
        let much = format!(
            "{{% for a in range(10000) %}}{}{{% endfor %}}",
            "x".repeat(1000)
        );
        let error = template(&much).render(&json!([])).unwrap_err();
        assert!(error.contains("bytes"), "{error}");
        // A conversation of a thousand turns is well within the bounds.
        let turns: Vec<Value> = (0..1000)
            .map(|i| json!({"role": "user", "content": i.to_string()}))
            .collect();
        let chat = template("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}");
        assert!(chat.render(&json!(turns)).unwrap().ends_with("<user>999\n"));
    }

    #[test]
    fn a_template_can_refuse() {
        let chat = template("{{ raise_exception('system messages are not supported') }}");
        let error = chat.render(&json!([])).unwrap_err();
        assert!(error.contains("not supported"), "{error}");
    }
}
