//! The model card, `README.md` of a model directory.

use std::fmt::Write;

/// What a model card says. Empty parts are left out.
#[derive(Debug, Clone, Default)]
pub struct ModelCard {
    /// Title of the card.
    pub name: String,
    /// `model_type` of the configuration.
    pub model_type: String,
    /// Number of parameters.
    pub parameters: Option<u64>,
    /// Languages as two-letter codes ("ko").
    pub languages: Vec<String>,
    /// Licence identifier ("mit"), if the user gave one.
    pub license: Option<String>,
    /// What the model does, in hub terms ("fill-mask", "text-generation").
    pub pipeline_tag: Option<String>,
    /// Paragraphs: what it was trained on and how.
    pub paragraphs: Vec<String>,
    /// Rows of measurements: name and value.
    pub results: Vec<(String, String)>,
}

impl ModelCard {
    /// The card as Markdown with the YAML head that hubs read.
    pub fn render(&self) -> String {
        let mut text = String::from("---\n");
        // Writing to a String can't fail.
        if !self.languages.is_empty() {
            text.push_str("language:\n");
            for language in &self.languages {
                let _ = writeln!(text, "- {}", yaml(language));
            }
        }
        if let Some(license) = &self.license {
            let _ = writeln!(text, "license: {}", yaml(license));
        }
        if let Some(tag) = &self.pipeline_tag {
            let _ = writeln!(text, "pipeline_tag: {}", yaml(tag));
        }
        let _ = writeln!(
            text,
            "library_name: transformers\ntags:\n- malmoi\n- {}\n---\n",
            yaml(&self.model_type)
        );
        let _ = writeln!(text, "# {}\n", self.name.replace('\n', " "));
        let parameters = self
            .parameters
            .map(|n| format!(", {} parameters", thousands(n)))
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "A `{}` model{parameters}, written by malmoi.",
            self.model_type
        );
        for paragraph in &self.paragraphs {
            let _ = writeln!(text, "\n{paragraph}");
        }
        if !self.results.is_empty() {
            text.push_str("\n| Measure | Value |\n|---|---|\n");
            for (name, value) in &self.results {
                let _ = writeln!(text, "| {} | {} |", cell(name), cell(value));
            }
        }
        text
    }
}

/// A YAML string that can't be mistaken for anything else (`no` is a truth value in YAML).
fn yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// 1234567 → "1,234,567".
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_has_a_yaml_head_and_its_facts() {
        let card = ModelCard {
            name: "작은 BERT".into(),
            model_type: "bert".into(),
            parameters: Some(1_234_567),
            languages: vec!["ko".into(), "no".into()],
            results: vec![("a|b".into(), "0.5".into())],
            ..Default::default()
        };
        let text = card.render();
        assert!(
            text.starts_with("---\nlanguage:\n- \"ko\"\n- \"no\"\nlibrary_name"),
            "{text}"
        );
        assert!(
            text.contains("# 작은 BERT\n\nA `bert` model, 1,234,567 parameters"),
            "{text}"
        );
        assert!(text.contains("| a\\|b | 0.5 |"), "{text}");
        assert!(
            !text.contains("license"),
            "no licence is claimed unless the user gave one"
        );
    }
}
