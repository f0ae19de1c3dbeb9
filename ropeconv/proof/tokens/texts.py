"""Short texts in many scripts and kinds, for comparing tokenizers."""

from __future__ import annotations

SCRIPT_SAMPLES: dict[str, str] = {
    "english": (
        "The quick model reads 1,234 pages; it doesn't tire, and she'll say "
        "we've won. I'M SURE THEY'RE RIGHT!"
    ),
    "german": "Größere Wörterbücher heißen manchmal »Wortschatz« – für 3,50 € übrigens.",
    "french": "L'été dernier, où étais-tu ? Peut-être à Noël : c'était déjà l'hiver…",
    "russian": "Длинный контекст помогает читать книги. Привет, мир! Ёжик спит 12 часов.",
    "greek": "Η γρήγορη αλεπού πηδάει πάνω από τον σκύλο· τι ωραία μέρα!",
    "arabic": "السياق الطويل يساعد النموذج على القراءة، أليس كذلك؟ ١٢٣",
    "hebrew": "ההקשר הארוך עוזר למודל לקרוא ספרים שלמים.",
    "hindi": "लंबा संदर्भ मॉडल को पूरी किताब पढ़ने देता है। १२३ दिन",
    "bengali": "দীর্ঘ প্রসঙ্গ মডেলকে পুরো বই পড়তে দেয়।",
    "tamil": "நீண்ட சூழல் மாதிரிக்கு உதவுகிறது.",
    "thai": "บริบทที่ยาวช่วยให้แบบจำลองอ่านหนังสือได้ทั้งเล่ม",
    "chinese": "长上下文让模型一次读完整本书，共三百二十页。2024年",
    "japanese": "長い文脈があれば、モデルはカタカナも読めます。「はい」と言った。",
    "korean": "긴 문맥은 모델이 책 한 권을 읽게 해 줍니다. 안녕하세요!",
    "georgian": "გრძელი კონტექსტი ეხმარება მოდელს წიგნის წაკითხვაში.",
    "armenian": "Երկար համատեքստը օգնում է մոդելին կարդալ։",
    "amharic": "ረጅም አውድ ሞዴሉን ይረዳል።",
    "vietnamese": "Ngữ cảnh dài giúp mô hình đọc trọn cuốn sách.",
    "emoji": "Ready 🚀🚀 steady 👩‍👩‍👧‍👦 go 🇫🇷! 👍🏽 ❤️ ©®™",
    "mathematics": "∀x∈ℝ: ∑ᵢ xᵢ² ≥ 0, √2 ≈ 1.41421356, θ·10⁻³ ≠ ½",
    "code": 'def f(x: int) -> str:\n    return f"{x!r}\\t{x:>08.3f}"  # 0xFF, a_b != C3\n\n\nif '
    "__name__ == '__main__':\n\tprint(f(-12345678))\n",
    "markup": '<div class="a-b">&nbsp;text</div>\n<!-- [x](https://example.org/?q=1&r=%20) -->',
    "digits": "0 12 345 6789 12345 678901 3.14159 1e-9 2001:db8::1 ٣٤٥ ⅔ Ⅷ",
    "whitespace": " one  two   three    four\t\ttabs\n\n\nlines \n  \n mixed \r\n end   ",
    "edges": "   \n\n",
}
